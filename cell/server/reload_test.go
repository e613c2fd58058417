package server_test

import (
	"strings"
	"testing"
	"time"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/schema/wire"
)

// policyWith is the default policy with a change, as a file.
func policyWith(t *testing.T, change func(*policy.Policy)) []byte {
	t.Helper()
	p := policy.Default()
	change(p)
	b, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func maxPayload(t *testing.T, c *celltest.Conn) uint32 {
	t.Helper()
	return celltest.Must[*wire.HelloResponse](c, &wire.HelloRequest{MinVersion: 1, MaxVersion: 1}).MaxPayload
}

func TestANewPolicyTakesEffectWithoutARestart(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, _, from, _ := pair(t, c)
	large := from.Message(t, strings.Repeat("x", 20<<10))
	hash := c.Ops(t, "/policy")
	c.WritePolicy(t, policyWith(t, func(p *policy.Policy) { p.Limits.MaxPayloadBytes = 16 << 10 }))
	c.Reload(t)
	if n := maxPayload(t, alice.Conn); n != 16<<10 {
		t.Fatalf("the cap is %d", n)
	}
	alice.Conn.Refused(large, wire.CodePayloadTooLarge)
	if c.Ops(t, "/policy") == hash {
		t.Error("the ops port tells the hash of the policy before")
	}

	c.WritePolicy(t, []byte("version: quicproquo.dev/policy/v1\nlimits:\n  maxPayloadBytes: nine\n"))
	for range 3 { // The file is looked at again and again, and counted once.
		c.Reload(t)
	}
	if n := maxPayload(t, alice.Conn); n != 16<<10 {
		t.Fatalf("an invalid file changed the cap to %d", n)
	}
	for _, want := range []string{`qpq_policy_reloads_total{result="invalid"} 1`, `qpq_policy_reloads_total{result="ok"} 1`} {
		if !strings.Contains(c.Ops(t, "/metrics"), want) {
			t.Errorf("the metrics do not say %s", want)
		}
	}
	if n := strings.Count(c.Log.String(), "the policy was not replaced"); n != 1 {
		t.Errorf("logged %d times", n)
	}

	c.WritePolicy(t, policyWith(t, func(*policy.Policy) {}))
	c.Reload(t)
	if n := maxPayload(t, alice.Conn); n != policy.MaxPayloadBytes {
		t.Fatalf("the cap is %d", n)
	}
	celltest.Must[*wire.EnqueueResponse](alice.Conn, large)
}

func TestANewRetentionFindsItsPartitions(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, bob, from, _ := pair(t, c)
	for _, retention := range []time.Duration{90 * 24 * time.Hour, time.Hour} { // Days for which there was no partition.
		c.WritePolicy(t, policyWith(t, func(p *policy.Policy) { p.Retention.Messages = policy.Duration(retention) }))
		c.Reload(t)
		celltest.Must[*wire.EnqueueResponse](alice.Conn, from.Message(t, "kept"))
		deliveryOf(t, bob)
	}
}

func TestAPolicyWithoutItsPartitionsIsNotUsed(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, bob, from, _ := pair(t, c)
	c.Execute(t, `ALTER TABLE messages RENAME TO messages_hidden`) // No partition can be made.
	c.WritePolicy(t, policyWith(t, func(p *policy.Policy) {
		p.Retention.Messages = policy.Duration(90 * 24 * time.Hour)
		p.Limits.MaxPayloadBytes = 16 << 10
	}))
	c.Reload(t)
	c.Execute(t, `ALTER TABLE messages_hidden RENAME TO messages`)
	if n := maxPayload(t, alice.Conn); n != policy.MaxPayloadBytes {
		t.Fatalf("the cap is %d: a policy is used whose partitions are missing", n)
	}
	celltest.Must[*wire.EnqueueResponse](alice.Conn, from.Message(t, "under the policy before"))
	deliveryOf(t, bob)
	c.Reload(t)
	if n := maxPayload(t, alice.Conn); n != 16<<10 {
		t.Fatalf("the cap is %d: it was not tried again", n)
	}
}

func TestANewCertificateTakesEffectWithoutARestart(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	serial := func() string {
		return c.Dial(t).QUIC.ConnectionState().TLS.PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	old := c.Dial(t)
	c.WriteCertificate(t)
	c.Reload(t)
	second := serial()
	if first == second {
		t.Fatal("the certificate is the one before")
	}
	alive(t, old)
	write(t, c, "tls.crt", "broken")
	c.Reload(t)
	if serial() != second {
		t.Fatal("a broken file replaced the certificate")
	}
	if !strings.Contains(c.Log.String(), "the certificate was not replaced") {
		t.Error("nobody was told")
	}
}
