package mls

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// shows reports whether a text shows a secret, or the first half of it, in one of
// the ways in which Go programs print bytes.
func shows(text string, secret []byte) bool {
	half := secret[:max(8, len(secret)/2)]
	decimal := strings.Trim(fmt.Sprintf("%d", half), "[]")
	for _, s := range []string{
		string(half), decimal, strings.ReplaceAll(decimal, " ", ", "), strings.Trim(fmt.Sprintf("%q", half), `"`),
		base64.RawStdEncoding.EncodeToString(half[:len(half)/3*3]), base64.RawURLEncoding.EncodeToString(half[:len(half)/3*3]),
	} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return strings.Contains(strings.ToLower(text), hex.EncodeToString(half))
}

// bytesInText finds what looks like printed bytes, whatever they are: derived keys
// are in no list of secrets.
var bytesInText = regexp.MustCompile(`[0-9a-fA-F]{20,}|(\d{1,3},? ){7,}|(\\x[0-9a-f]{2}.{0,3}){3,}|[A-Za-z0-9+/_=-]{24,}|[^[:print:]]`)

// secretWatch checks that no error's text shows what must not be logged.
type secretWatch struct {
	secrets [][]byte
	checked map[string]bool // texts, of which there are few
}

func newSecretWatch(secrets [][]byte) *secretWatch {
	return &secretWatch{secrets: secrets, checked: map[string]bool{}}
}

func (w *secretWatch) check(t testing.TB, err error) {
	t.Helper()
	if err == nil || w.checked[err.Error()] {
		return
	}
	text := err.Error()
	w.checked[text] = true
	if found := bytesInText.FindString(text); found != "" {
		t.Errorf("bytes, %q, are in the error %q", found, text)
	}
	for _, s := range w.secrets {
		if shows(text, s) {
			t.Errorf("a secret is in the error %q", text)
		}
	}
	if len(text) > 300 {
		t.Errorf("error of %d bytes", len(text))
	}
}

func TestSecretWatchSeesSecrets(t *testing.T) {
	t.Parallel()
	secret := randomBytes(32)
	for _, format := range []string{"%s", "%x", "%X", "%v", "%q", "%d"} {
		r := &recorder{TB: t}
		newSecretWatch(nil).check(r, errors.New("derived "+fmt.Sprintf(format, secret[:16])))
		if !r.failed {
			t.Errorf("bytes printed with %s are not seen", format)
		}
		r = &recorder{TB: t}
		newSecretWatch([][]byte{randomBytes(32), secret}).check(r, errors.New("key "+fmt.Sprintf(format, secret)))
		if !r.failed {
			t.Errorf("a secret printed with %s is not seen", format)
		}
	}
	r := &recorder{TB: t}
	newSecretWatch([][]byte{secret}).check(r, errors.New(base64.StdEncoding.EncodeToString(secret)))
	if !r.failed {
		t.Error("a secret in base64 is not seen")
	}
	r = &recorder{TB: t}
	newSecretWatch([][]byte{secret}).check(r, errors.New("nothing to see"))
	if r.failed {
		t.Error("a secret is seen where there is none")
	}
}

// Everything that can go wrong while secrets are at hand, and no error tells one.
func TestFaultSecretsInErrorText(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 4)
	a, b, fresh := peers[0], peers[1], newPeer(t, "fresh")
	psk, other := randomBytes(hashSize), randomBytes(hashSize)
	plaintext := []byte("the plaintext of this test is a secret")
	store := func(key []byte, err error) PSKFunc {
		return func(*PreSharedKeyID) ([]byte, error) { return key, err }
	}
	id := &PreSharedKeyID{Type: PSKExternal, ID: []byte("id")}
	a.SetPSKStore(store(psk, nil))
	c := a.mustCommit(t, CommitOptions{PSKs: []*PreSharedKeyID{id}, Adds: keyPackagesOf([]*peer{fresh}), ForcePath: true})
	sent, err := a.Encrypt(plaintext, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	talkative := fmt.Errorf("the key is %x, not %s", psk, other)
	secrets := [][]byte{psk, other, plaintext, a.signer.Seed(), b.signer.Seed(), fresh.signer.Seed(), fresh.bundle.initPrivate, fresh.bundle.leafPrivate}
	for _, p := range peers {
		secrets = append(secrets, secretsOf(p.Group)...)
	}
	watch, failures := newSecretWatch(secrets), 0
	fails := func(where string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s: succeeds, and was to fail", where)
		}
		failures++
		watch.check(t, err)
	}
	// Pre-shared keys: the store's own words are not repeated.
	for name, s := range map[string]PSKStore{"unknown PSK": store(nil, talkative), "wrong PSK": store(other, nil), "no store": nil} {
		b.SetPSKStore(s)
		_, err := b.Process(mustParse(t, c.Commit), testNow)
		fails(name, err)
		_, err = JoinGroup(mustParse(t, c.Welcome).Welcome, fresh.bundle, fresh.signer, JoinOptions{PSKs: s})
		fails("join with "+name, err)
	}
	b.SetPSKStore(store(nil, talkative))
	_, err = b.Commit(CommitOptions{PSKs: []*PreSharedKeyID{id}})
	fails("commit", err)
	// Keys that do not fit.
	mixed := &KeyPackageBundle{keyPackage: fresh.bundle.keyPackage, initPrivate: fresh.bundle.leafPrivate, leafPrivate: fresh.bundle.initPrivate}
	_, err = JoinGroup(mustParse(t, c.Welcome).Welcome, mixed, fresh.signer, JoinOptions{PSKs: store(psk, nil)})
	fails("join with swapped keys", err)
	_, err = JoinGroup(mustParse(t, c.Welcome).Welcome, fresh.bundle, a.signer, JoinOptions{})
	fails("join with another's signer", err)
	// Saved states, spoiled in every byte or cut.
	pending, err := c.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := fresh.bundle.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]struct {
		b    []byte
		load func([]byte) error
	}{
		"group":   {marshal(t, b.Group), func(in []byte) error { _, err := UnmarshalGroup(in, b.signer, nil); return err }},
		"pending": {pending, func(in []byte) error { _, err := a.UnmarshalPendingCommit(in); return err }},
		"bundle":  {bundle, func(in []byte) error { _, err := UnmarshalKeyPackageBundle(in); return err }},
	} {
		for i := range s.b {
			fails(name+" cut", s.load(s.b[:i]))
			if i%3 == 0 {
				bad := bytes.Clone(s.b)
				bad[i] ^= 0xff
				watch.check(t, s.load(bad))
			}
		}
		fails(name+" with a byte more", s.load(append(bytes.Clone(s.b), 0)))
	}
	// Messages that were changed on their way.
	for i := 4; i < len(sent); i++ {
		bad := bytes.Clone(sent)
		bad[i] ^= 4
		m, err := ParseMessage(bad)
		if err == nil {
			_, err = b.Process(m, testNow)
		}
		fails("message", err)
	}
	b.mustProcess(t, sent)
	_, err = b.Process(mustParse(t, sent), testNow)
	fails("replay", err)
	_, err = b.Export("label", nil, -1)
	fails("export", err)
	if failures < 1000 {
		t.Errorf("%d failures: the test tries hardly anything", failures)
	}
}
