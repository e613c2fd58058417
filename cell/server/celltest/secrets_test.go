package celltest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

var (
	token = []byte("\x01\x02a token of many bytes\xfe\xff")
	proof = bytes.Repeat([]byte{7, 9, 200}, 20)
)

// taught is what a test knows after some traffic.
func taught(t *testing.T) *Secrets {
	t.Helper()
	s := SecretsOf(t)
	s.Learn(&wire.LoginStartRequest{Name: "mallory", KE1: bytes.Repeat([]byte{1, 2, 3}, 32), DeviceID: ids.New(), Proof: proof})
	s.Learn(&wire.Session{AccessToken: token, RefreshToken: []byte("a refresh token of many bytes"), AccessExpiresAt: time.Now()})
	s.Learn(&wire.Codes{Codes: []string{"QPQR-1234-5678"}})
	s.Learn(wire.Errorf(wire.CodeNotFound, "nothing to learn: mallory2"))
	s.Text("a password", "correct horse")
	s.Client(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 50999})
	s.Client(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 7), Port: 50998})
	s.Own("127.0.0.1:4201")
	s.Own("http://127.0.0.1:8080")
	return s
}

// A leak of any kind, in any of the ways in which things are printed, is found: else the checks of all tests are worth nothing.
func TestPlantedLeaksAreFound(t *testing.T) {
	t.Parallel()
	s := taught(t)
	for _, leak := range []string{"no account mallory here", `"name":"MALLORY"`, "for mallory:", hex.EncodeToString(token), strings.ToUpper(hex.EncodeToString(proof)),
		base64.StdEncoding.EncodeToString(token), base64.RawURLEncoding.EncodeToString(proof), fmt.Sprintf("%d", token), fmt.Sprintf("%q", token), string(token), fmt.Sprintf("%x", proof[:30]),
		"password: correct horse", "QPQR-1234-5678", "from 127.0.0.1:50999", "from 127.0.0.7", "port :50998", "10.1.2.3", "10.1.2.3:5432", "[2001:db8::1]:99",
		"-----BEGIN PRIVATE KEY-----", "(a text under a key that is not in the vocabulary)", "(netip.Addr is not logged)"} {
		log := `{"level":"INFO","msg":"one"}` + "\n" + `{"level":"WARN","msg":"` + leak + `"}` + "\n" + `{"level":"INFO","msg":"three"}`
		found := s.Leaks(log)
		if len(found) == 0 {
			t.Errorf("nobody sees %q", leak)
		}
		for _, f := range found {
			if strings.Contains(f, `"one"`) || strings.Contains(f, `"three"`) {
				t.Errorf("it shows another line: %s", f)
			}
		}
	}
	for _, fine := range []string{`{"quic":"127.0.0.1:4201","ops":"127.0.0.1:8080"}`, "mallory2", "smallory", ids.New().String(), "cell 1.2.3", "12:34:56.789", "0.0.0",
		"[1/2]", "4201 and 50997", hex.EncodeToString([]byte{1, 2, 3})} {
		if found := s.Leaks(fine); len(found) > 0 {
			t.Errorf("%q is taken for a leak: %q", fine, found)
		}
	}
}

// recorder is a test that fails on purpose.
type recorder struct {
	*testing.T
	errors []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}
func (*recorder) Helper() {}

// What goes through a cell's own logger is stopped by type where that can be, and found here where it cannot.
func TestALeakFailsTheTest(t *testing.T) {
	t.Parallel()
	c := &Cell{Log: &Log{}, secrets: taught(t)}
	log := c.Logger()
	log.Info("fine", "account", ids.New(), "method", "enqueue")
	r := &recorder{T: t}
	c.secrets.Check(r, "the cell", c.Log.String())
	if len(r.errors) != 0 {
		t.Errorf("%q", r.errors)
	}
	log.Error("a defect", "error", errors.New("no account mallory"))
	log.Error("another", slog.Any("token", token))
	c.secrets.Check(r, "the cell", c.Log.String())
	if len(r.errors) != 2 || !strings.Contains(r.errors[0]+r.errors[1], "mallory") || strings.Contains(c.Log.String(), hex.EncodeToString(token)) {
		t.Errorf("%q", r.errors)
	}
}
