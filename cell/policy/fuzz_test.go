package policy

import (
	"bytes"
	"testing"
)

// FuzzParse feeds Parse what a ConfigMap could hold. Whatever is accepted
// must be valid, and must survive Marshal and Parse with the same bytes and
// hash: else a pod and the operator would disagree about the policy in use.
func FuzzParse(f *testing.F) {
	canonical, err := Default().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(canonical)
	f.Add([]byte("version: quicproquo.dev/policy/v1\nlimits: {trustedRanges: [10.0.0.1/8, '::/0']}\n"))
	f.Add([]byte("version: quicproquo.dev/policy/v1\nretention: {messages: 1.5h, history: off}\n---\na: 1\n"))
	f.Add([]byte("version: quicproquo.dev/policy/v1\nsignup: invitation\n"))
	f.Add([]byte("version: quicproquo.dev/policy/v1\nsignup: [closed]\n"))
	f.Add([]byte("version: quicproquo.dev/policy/v1\naccess: {clientCertificates: required, admins: [{name: b, role: auditor}, {name: a, role: cellAdmin}]}\n"))
	f.Add([]byte("a: &a [x]\nb: *a\n\"limits.maxConnections\": 1\n"))
	f.Add([]byte{0xff, 0xfe, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err != nil {
			if p != nil {
				t.Fatal("a policy came with an error")
			}
			return
		}
		if err := p.Validate(); err != nil {
			t.Fatalf("accepted, yet not valid: %v", err)
		}
		first, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(first)
		if err != nil {
			t.Fatalf("canonical bytes are refused: %v\n%s", err, first)
		}
		second, err := again.Marshal()
		if err != nil || !bytes.Equal(first, second) || p.Hash() != again.Hash() {
			t.Fatalf("not stable (%v):\n%s\n%s", err, first, second)
		}
	})
}
