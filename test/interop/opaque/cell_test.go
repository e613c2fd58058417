package opaque

import (
	"crypto/ed25519"
	"testing"
	"time"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/internal/embeddedpg/pgtest"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// registration is what the other client makes of an answer.
func (p *peer) register(conn *celltest.Conn, start func(message []byte) wire.Request, password string) (record, exportKey []byte, key uint32) {
	p.t.Helper()
	begun := p.must("startRegistration", args{"password": password})
	answer := celltest.Must[*wire.SignupStartResponse](conn, start(bytesOf(p.t, begun["registrationRequest"])))
	done := p.must("finishRegistration", args{"password": password, "clientRegistrationState": begun["clientRegistrationState"],
		"registrationResponse": text(answer.RegistrationResponse)})
	return bytesOf(p.t, done["registrationRecord"]), bytesOf(p.t, done["exportKey"]), answer.OpaqueKey
}

// login is a login by the other client; ok is false when it finds the password wrong.
func (p *peer) login(conn *celltest.Conn, name, password string) (out *wire.LoginFinishResponse, exportKey []byte, ok bool) {
	p.t.Helper()
	begun := p.must("startLogin", args{"password": password})
	ke2 := celltest.Must[*wire.LoginStartResponse](conn, &wire.LoginStartRequest{Name: name, KE1: bytesOf(p.t, begun["startLoginRequest"])})
	done := p.must("finishLogin", args{"password": password, "clientLoginState": begun["clientLoginState"], "loginResponse": text(ke2.KE2)})
	if done == nil {
		return nil, nil, false
	}
	out = celltest.Must[*wire.LoginFinishResponse](conn, &wire.LoginFinishRequest{KE3: bytesOf(p.t, done["finishLoginRequest"])})
	return out, bytesOf(p.t, done["exportKey"]), true
}

// Another client signs up with a real cell, logs in, fails to with a wrong password, and changes its password.
func TestAnotherClientAgainstTheCell(t *testing.T) {
	t.Parallel()
	p := makePeer(t)
	c := celltest.New(t)
	conn := c.Dial(t)
	const name, password = "alice", "correct horse – ünïcode"
	record, exportKey, key := p.register(conn, func(m []byte) wire.Request { return &wire.SignupStartRequest{Name: name, RegistrationRequest: m} }, password)
	_, root, _ := ed25519.GenerateKey(nil)
	_, device, _ := ed25519.GenerateKey(nil)
	cert := devicecert.Issue(root, ids.New(), ids.New(), device.Public().(ed25519.PublicKey), time.Now())
	celltest.Must[*wire.Session](conn, &wire.SignupFinishRequest{Name: name, RegistrationRecord: record, OpaqueKey: key, WrappedRootKey: []byte("wrapped"),
		Certificate: cert.Marshal(), DeviceName: "node", Proof: devicecert.Prove(device, conn.Exporter())})

	second := c.Dial(t)
	out, again, ok := p.login(second, name, password)
	if !ok || out.AccountID != cert.AccountID || string(out.WrappedRootKey) != "wrapped" || string(again) != string(exportKey) {
		t.Fatalf("login: %t, %+v; the same export key: %t", ok, out, string(again) == string(exportKey))
	}
	celltest.Must[*wire.Session](second, &wire.StartSessionRequest{Certificate: cert.Marshal(), DeviceName: "node", Proof: devicecert.Prove(device, second.Exporter())})
	for _, x := range [][2]string{{name, "wrong"}, {"nobody", password}} {
		if _, _, ok := p.login(c.Dial(t), x[0], x[1]); ok {
			t.Errorf("%s logs in with %q", x[0], x[1])
		}
	}
	third := c.Dial(t)
	if _, _, ok := p.login(third, name, password); !ok {
		t.Fatal("the password does not work any more")
	}
	record, _, key = p.register(third, func(m []byte) wire.Request { return &wire.SetPasswordStartRequest{RegistrationRequest: m} }, "another")
	celltest.Must[*wire.Done](third, &wire.SetPasswordFinishRequest{RegistrationRecord: record, OpaqueKey: key, WrappedRootKey: []byte("wrapped anew")})
	if _, _, ok := p.login(c.Dial(t), name, password); ok {
		t.Error("the old password still works")
	}
	if out, _, ok := p.login(c.Dial(t), name, "another"); !ok || string(out.WrappedRootKey) != "wrapped anew" {
		t.Errorf("the new password: %t", ok)
	}
}
