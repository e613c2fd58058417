package identity

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// answered fails unless an answer is a refusal in the protocol's words: what has no code, or is internal, is a defect.
func answered(t interface{ Fatalf(string, ...any) }, what string, err error) {
	var e *wire.Error
	if err != nil && !errors.As(err, &e) && !errors.Is(err, store.ErrNotFound) || wire.HasCode(err, wire.CodeInternal) || wire.HasCode(err, wire.CodeBusy) {
		t.Fatalf("%s: %v", what, err)
	}
}

// attempted is a message that is right as it stands, and how it is sent.
type attempted struct {
	message wire.Request
	bound   []string // The fields of which nothing may be changed.
	send    func(wire.Request) error
}

// attempts make fresh right messages, of each kind whose fields prove something.
var attempts = []func(f *fixture, t *testing.T, known *person, session *wire.Session) attempted{
	func(f *fixture, t *testing.T, _ *person, _ *wire.Session) attempted {
		return attempted{f.finishing(t, newPerson("p"+ids.New().String())), []string{"OpaqueKey", "Certificate", "Proof"}, func(r wire.Request) error {
			_, _, err := f.SignupFinish(t.Context(), r.(*wire.SignupFinishRequest), exporter)
			return err
		}}
	},
	func(f *fixture, t *testing.T, known *person, _ *wire.Session) attempted {
		client, answer, begun := f.loginStart(t, known.name, "password")
		ke2, err := client.Deserialize.KE2(answer.KE2)
		must(t, err)
		ke3, _, _, err := client.GenerateKE3(ke2, nil, nil, quickly())
		must(t, err)
		return attempted{&wire.LoginFinishRequest{KE3: ke3.Serialize()}, []string{"KE3"}, func(r wire.Request) error {
			_, err := f.LoginFinish(t.Context(), begun, r.(*wire.LoginFinishRequest))
			return err
		}}
	},
	func(f *fixture, t *testing.T, known *person, _ *wire.Session) attempted {
		l, second := f.login(t, known), known.withDevice(known.cert.AccountID)
		return attempted{&wire.StartSessionRequest{Certificate: second.cert.Marshal(), DeviceName: "second", Proof: second.proof()}, []string{"Certificate", "Proof"}, func(r wire.Request) error {
			_, _, err := f.StartSession(t.Context(), l, r.(*wire.StartSessionRequest), exporter)
			return err
		}}
	},
	func(f *fixture, t *testing.T, known *person, session *wire.Session) attempted {
		return attempted{&wire.AuthenticateRequest{AccessToken: session.AccessToken, Proof: known.proof()}, []string{"AccessToken", "Proof"}, func(r wire.Request) error {
			_, err := f.Authenticate(t.Context(), r.(*wire.AuthenticateRequest), exporter)
			return err
		}}
	},
	func(f *fixture, t *testing.T, known *person, session *wire.Session) attempted {
		r := &wire.RefreshSessionRequest{RefreshToken: session.RefreshToken, DeviceID: known.cert.DeviceID, Proof: known.proof()}
		return attempted{r, []string{"RefreshToken", "DeviceID", "Proof"}, func(r wire.Request) error {
			_, _, err := f.Refresh(t.Context(), r.(*wire.RefreshSessionRequest), exporter)
			return err
		}}
	},
	func(f *fixture, t *testing.T, known *person, _ *wire.Session) attempted {
		text, _, err := f.ResetCode(t.Context(), known.name, time.Hour, audit.ByOperator())
		must(t, err)
		code, err := codes.Parse(codes.Reset, text)
		must(t, err)
		_, l, err := f.recover(known.name, code.Derive(codes.Reset))
		must(t, err)
		_, newRoot, _ := ed25519.GenerateKey(nil)
		again := person{name: known.name, root: newRoot}.withDevice(known.cert.AccountID)
		return attempted{f.resetting(t, l, again), []string{"OpaqueKey", "Certificate", "Proof"}, func(r wire.Request) error {
			_, _, err := f.ResetAccount(t.Context(), l, r.(*wire.ResetAccountRequest), exporter)
			return err
		}}
	},
}

// change returns a copy of a message in which one field is another.
func change(t *rapid.T, r wire.Request, field string) wire.Request {
	copied := reflect.New(reflect.TypeOf(r).Elem())
	copied.Elem().Set(reflect.ValueOf(r).Elem())
	switch v := copied.Elem().FieldByName(field).Addr().Interface().(type) {
	case *[]byte:
		*v = changeBytes(t, *v)
	case *ids.ID:
		v[rapid.IntRange(0, ids.Size-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "xor"))
	case *uint32:
		*v ^= rapid.Uint32Range(2, 1<<31).Draw(t, "xor") // Not 0, which is the present one by another name.
	default:
		t.Fatalf("%s of %T has a type of its own", field, r)
	}
	return copied.Interface().(wire.Request)
}

func changeBytes(t *rapid.T, b []byte) []byte {
	was := b
	b = bytes.Clone(b)
	switch rapid.IntRange(0, 4).Draw(t, "how") {
	case 0:
		return b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")]
	case 1:
		return append(b, rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(t, "more")...)
	case 2:
		return bytes.Repeat([]byte{0}, len(b))
	case 3:
		if made := rapid.SliceOfN(rapid.Byte(), 0, 2*len(b)).Draw(t, "made up"); !bytes.Equal(made, was) {
			return made
		}
	}
	b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "xor"))
	return b
}

// Each message is taken as it is, and with one field changed it is refused, in words of the protocol.
func TestChangedAuthMessagesAreRefused(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	taken := map[string]bool{}
	rapid.Check(t, func(rt *rapid.T) {
		known := newPerson("p" + ids.New().String())
		session, err := f.signup(t.Context(), known)
		must(t, err)
		a := rapid.SampledFrom(attempts).Draw(rt, "kind")(f, t, known, session)
		method := a.message.Method()
		if rapid.IntRange(0, 3).Draw(rt, "as it is") == 0 {
			if err := a.send(a.message); err != nil {
				rt.Fatalf("%s, as it is right: %v", method, err)
			}
			taken[method] = true
			return
		}
		field := rapid.SampledFrom(a.bound).Draw(rt, "field")
		err = a.send(change(rt, a.message, field))
		if answered(rt, method, err); err == nil {
			rt.Fatalf("%s was taken with another %s", method, field)
		}
	})
	if len(taken) < 3 {
		t.Errorf("only %v were ever taken", taken)
	}
}

// fixed is somebody with the same keys in each process: a fuzz target's seeds come from others.
func fixed(name string, seed byte) *person {
	p := &person{name: name, root: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32)), device: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed + 1}, 32))}
	p.cert = devicecert.Issue(p.root, ids.ID{seed}, ids.ID{seed + 1}, p.device.Public().(ed25519.PublicKey), time.Unix(1_700_000_000, 0))
	return p
}

// captured are the captures of requests, one frame each.
func captured(f *testing.F) (frames [][]byte) {
	f.Helper()
	files, err := filepath.Glob("../../schema/testdata/golden/request-*.hex")
	if err != nil || len(files) == 0 {
		f.Fatalf("no captures: %v", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		must(f, err)
		var digits strings.Builder
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "#") {
				digits.WriteString(strings.Join(strings.Fields(line), ""))
			}
		}
		b, err := hex.DecodeString(digits.String())
		must(f, err)
		frames = append(frames, b)
	}
	return frames
}

// FuzzAuthMessages has a service answer whatever the wire can say, of a stranger, somebody whose login is under way, one
// whose login is proven, and a device: each is answered in words of the protocol.
func FuzzAuthMessages(f *testing.F) {
	for _, b := range captured(f) {
		f.Add(b)
	}
	alice, bob := fixed("alice", 1), fixed("bob", 3)
	for _, r := range []wire.Request{
		&wire.StartSessionRequest{Certificate: alice.cert.Marshal(), Proof: alice.proof()},
		&wire.RefreshSessionRequest{RefreshToken: make([]byte, refreshSize), DeviceID: alice.cert.DeviceID, Proof: alice.proof()},
		&wire.SignupFinishRequest{Name: "bob", RegistrationRecord: make([]byte, 192), OpaqueKey: 1, WrappedRootKey: []byte("w"), Certificate: bob.cert.Marshal(), Proof: bob.proof()},
	} {
		b, err := wire.Marshal(wire.Envelope{CorrelationID: 1, Body: r})
		must(f, err)
		f.Add(b)
	}
	fx := makeService(f)
	s, err := fx.signup(f.Context(), alice)
	must(f, err)
	device, err := fx.Authenticate(f.Context(), &wire.AuthenticateRequest{AccessToken: s.AccessToken, Proof: alice.proof()}, exporter)
	must(f, err)
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := wire.Unmarshal(b)
		if err != nil {
			return
		}
		r, ok := e.Body.(wire.Request)
		if !ok {
			return
		}
		_, _, begun := fx.loginStart(t, "alice", "password")
		fx.succeeded(t.Context(), alice.cert.AccountID, begun.attempt) // Or she would be locked out.
		proven := &Login{account: begun.account, known: true, proven: true, provenAt: fx.time()}
		for _, l := range []*Login{nil, {}, begun, proven} {
			if _, ends := r.(*wire.DeleteAccountRequest); ends && l == proven {
				continue // The others are about somebody who exists.
			}
			answered(t, r.Method(), fx.call(t.Context(), device, l, r))
		}
	})
}

// call makes the call that a session would.
func (f *fixture) call(ctx context.Context, p Principal, l *Login, r wire.Request) (err error) {
	switch r := r.(type) {
	case *wire.SignupStartRequest:
		_, err = f.SignupStart(ctx, r)
	case *wire.SignupFinishRequest:
		_, _, err = f.SignupFinish(ctx, r, exporter)
	case *wire.LoginStartRequest:
		_, l, err = f.LoginStart(ctx, r, exporter)
		f.Abandoned(l)
	case *wire.LoginFinishRequest:
		if l != nil {
			_, err = f.LoginFinish(ctx, l, r)
		}
	case *wire.StartSessionRequest:
		_, _, err = f.StartSession(ctx, l, r, exporter)
	case *wire.RefreshSessionRequest:
		_, _, err = f.Refresh(ctx, r, exporter)
	case *wire.AuthenticateRequest:
		_, err = f.Authenticate(ctx, r, exporter)
	case *wire.SetPasswordStartRequest:
		_, err = f.SetPasswordStart(l, r)
	case *wire.SetPasswordFinishRequest:
		_, err = f.SetPasswordFinish(ctx, l, r, p.DeviceID)
	case *wire.RecoverRequest:
		_, l, err = f.Recover(ctx, r, exporter)
		f.Abandoned(l)
	case *wire.SetRecoveryCodesRequest:
		_, err = f.SetRecoveryCodes(ctx, l, r, p.DeviceID)
	case *wire.ResetAccountRequest:
		_, _, err = f.ResetAccount(ctx, l, r, exporter)
	case *wire.ListDevicesRequest:
		_, err = f.ListDevices(ctx, p)
	case *wire.RenameDeviceRequest:
		_, err = f.RenameDevice(ctx, p, r)
	case *wire.RevokeDeviceRequest:
		_, err = f.RevokeDevice(ctx, p, l, r)
	case *wire.StartDeviceLinkRequest:
		_, err = f.StartDeviceLink(ctx, r)
	case *wire.GetDeviceLinkRequest:
		_, err = f.GetDeviceLink(ctx, r)
	case *wire.ApproveDeviceLinkRequest:
		_, err = f.ApproveDeviceLink(ctx, p, l, r)
	case *wire.FinishDeviceLinkRequest:
		_, _, err = f.FinishDeviceLink(ctx, r, exporter)
	case *wire.DeleteAccountRequest:
		_, err = f.DeleteAccount(ctx, l, r)
	case *wire.ExportAccountRequest:
		_, err = f.ExportAccount(ctx, p, r)
	}
	return err
}
