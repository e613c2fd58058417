package opaque

import (
	"context"
	"crypto/rand"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/cell/delivery"
	"quicproquo.dev/cell/endpoint"
	"quicproquo.dev/cell/identity"
	"quicproquo.dev/cell/limits"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/session"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/cell/telemetry"
	"quicproquo.dev/client"
	"quicproquo.dev/client/keystore"
	"quicproquo.dev/internal/pki"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// otherCell is a cell whose passwords the other implementation's server checks. It knows one account, in memory.
type otherCell struct {
	session.Identity // What is not overridden is not called.
	session.Keys
	session.Channels
	delivery.Store

	t     *testing.T
	p     *peer
	setup string

	mu      sync.Mutex
	name    string
	record  []byte
	wrapped []byte
	cert    *devicecert.Certificate
	state   string // Of the login under way.
	logins  int
}

func (o *otherCell) response(message []byte) (*wire.SignupStartResponse, error) {
	r, err := o.p.step("createRegistrationResponse", args{"serverSetup": o.setup, "userIdentifier": "credential", "registrationRequest": text(message)})
	if err != nil {
		return nil, err
	}
	return &wire.SignupStartResponse{RegistrationResponse: bytesOf(o.t, r["registrationResponse"]), OpaqueKey: 1}, nil
}

func (o *otherCell) SignupStart(_ context.Context, r *wire.SignupStartRequest) (*wire.SignupStartResponse, error) {
	return o.response(r.RegistrationRequest)
}

func (o *otherCell) SignupFinish(_ context.Context, r *wire.SignupFinishRequest, _ []byte) (*wire.Session, identity.Principal, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.name, o.record, o.wrapped = r.Name, r.RegistrationRecord, r.WrappedRootKey
	return o.start(r.Certificate)
}

func (o *otherCell) start(certificate []byte) (*wire.Session, identity.Principal, error) {
	cert, err := devicecert.Parse(certificate)
	if err != nil {
		return nil, identity.Principal{}, err
	}
	if o.cert == nil {
		o.cert = cert
	}
	soon := time.Now().Add(time.Hour)
	return &wire.Session{AccessToken: certificate, AccessExpiresAt: soon, RefreshToken: []byte("refresh"), RefreshExpiresAt: soon},
		identity.Principal{AccountID: cert.AccountID, DeviceID: cert.DeviceID, DeviceKey: cert.DeviceKey, ExpiresAt: soon}, nil
}

func (o *otherCell) LoginStart(_ context.Context, r *wire.LoginStartRequest, _ []byte) (*wire.LoginStartResponse, *identity.Login, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	a := args{"serverSetup": o.setup, "userIdentifier": "credential", "startLoginRequest": text(r.KE1)}
	if r.Name == o.name {
		a["registrationRecord"] = text(o.record)
	}
	out, err := o.p.step("serverStartLogin", a)
	if err != nil {
		return nil, nil, err
	}
	o.state = out["serverLoginState"]
	return &wire.LoginStartResponse{KE2: bytesOf(o.t, out["loginResponse"])}, &identity.Login{}, nil
}

// Abandoned has nobody to tell.
func (*otherCell) Abandoned(*identity.Login) {}

func (o *otherCell) LoginFinish(_ context.Context, _ *identity.Login, r *wire.LoginFinishRequest) (*wire.LoginFinishResponse, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, err := o.p.step("serverFinishLogin", args{"finishLoginRequest": text(r.KE3), "serverLoginState": o.state}); err != nil {
		return nil, wire.Errorf(wire.CodeInvalidCredentials, "%v", err)
	}
	o.logins++
	return &wire.LoginFinishResponse{AccountID: o.cert.AccountID, RootKey: o.cert.RootKey, WrappedRootKey: o.wrapped}, nil
}

func (o *otherCell) StartSession(_ context.Context, _ *identity.Login, r *wire.StartSessionRequest, _ []byte) (*wire.Session, identity.Principal, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.start(r.Certificate)
}

// Authenticate takes the token, which is the device's certificate, at its word.
func (o *otherCell) Authenticate(_ context.Context, r *wire.AuthenticateRequest, _ []byte) (identity.Principal, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, who, err := o.start(r.AccessToken)
	return who, err
}

func (o *otherCell) SetPasswordStart(_ *identity.Login, r *wire.SetPasswordStartRequest) (*wire.SignupStartResponse, error) {
	return o.response(r.RegistrationRequest)
}

func (o *otherCell) SetPasswordFinish(_ context.Context, _ *identity.Login, r *wire.SetPasswordFinishRequest, _ ids.ID) (*wire.Done, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.record, o.wrapped = r.RegistrationRecord, r.WrappedRootKey
	return &wire.Done{}, nil
}

func (o *otherCell) GetAccount(context.Context, *wire.GetAccountRequest) (*wire.Account, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return &wire.Account{AccountID: o.cert.AccountID, Name: o.name, RootKey: o.cert.RootKey}, nil
}

func (*otherCell) Upload(_ context.Context, _ identity.Principal, r *wire.UploadKeyPackagesRequest) (*wire.KeyPackageStatus, error) {
	return &wire.KeyPackageStatus{OneTime: uint16(len(r.OneTime)), LastResortExpiresAt: time.Now().Add(30 * 24 * time.Hour)}, nil //nolint:gosec // 100.
}

func (*otherCell) Status(context.Context, identity.Principal) (*wire.KeyPackageStatus, error) {
	return &wire.KeyPackageStatus{}, nil
}

// serve runs the cell and returns the options of a client of it.
func (o *otherCell) serve() func(passphrase string) client.Options {
	o.t.Helper()
	fatal := func(err error) {
		o.t.Helper()
		if err != nil {
			o.t.Fatal(err)
		}
	}
	ca, err := pki.NewCA("other", time.Now(), time.Hour)
	fatal(err)
	certPEM, keyPEM, err := ca.IssueServer([]string{"127.0.0.1"}, time.Now(), time.Hour)
	fatal(err)
	dir := o.t.TempDir()
	fatal(writeFile(dir, "tls.crt", certPEM))
	fatal(writeFile(dir, "tls.key", keyPEM))
	cert, err := endpoint.LoadCertificate(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	fatal(err)
	m, log := telemetry.New(), slog.New(slog.DiscardHandler)
	hub := delivery.NewHub(o, m, log, time.Now)
	lane := delivery.NewLane(o, m, log, time.Now, hub.Announce)
	rules := policy.Default()
	current := func() *policy.Policy { return rules }
	services := &session.Services{Identity: o, Keys: o, Channels: o, Lane: lane, Hub: hub, Cell: store.Cell{ID: ids.New(), RestoreEpoch: 1},
		Limits: limits.New(current, time.Now), Logins: session.NewLoginGate(), Policy: current, Metrics: m, Log: log, Now: time.Now, Server: "other"}
	var reset quic.StatelessResetKey
	var token quic.TokenGeneratorKey
	rand.Read(reset[:]) //nolint:errcheck // never fails.
	rand.Read(token[:]) //nolint:errcheck // never fails.
	q, err := endpoint.Listen("127.0.0.1:0", cert, endpoint.NoClients(), endpoint.Keys{Reset: reset, Token: token}, services)
	fatal(err)
	ctx, stop := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { _ = q.Serve(ctx) })
	o.t.Cleanup(func() {
		stop()
		_ = q.Close()
		lane.Close()
		serving.Wait()
	})
	return func(passphrase string) client.Options {
		return client.Options{Profile: filepath.Join(o.t.TempDir(), "profile"), Passphrase: []byte(passphrase), Endpoint: q.Addr().String(), Pin: ca.Pin(),
			KDF: keystore.KDF{Time: 1, MemoryKiB: 64, Threads: 1}, RetryFor: time.Nanosecond}
	}
}

// The SDK signs up with a cell whose passwords the other implementation checks, logs in from a further device, is told a
// wrong password and an unknown name, and changes its password.
func TestTheSDKAgainstAnotherServer(t *testing.T) {
	t.Parallel()
	p := makePeer(t)
	o := &otherCell{t: t, p: p, setup: p.must("createSetup", nil)["serverSetup"]}
	options := o.serve()
	const password = "correct horse – ünïcode"
	alice, err := client.Signup(t.Context(), options(password), "alice")
	if err != nil {
		t.Fatal(err)
	}
	defer alice.Close()
	login := func(name, passphrase string) error {
		c, err := client.Login(t.Context(), options(passphrase), name)
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := login("alice", password); err != nil {
		t.Error("a further device:", err)
	}
	for _, x := range [][2]string{{"alice", "wrong"}, {"nobody", password}} {
		if err := login(x[0], x[1]); !wire.HasCode(err, wire.CodeInvalidCredentials) {
			t.Errorf("%s with %q: %v", x[0], x[1], err)
		}
	}
	if err := alice.ChangePassword(t.Context(), []byte("another"), false); err != nil {
		t.Fatal(err)
	}
	if err := login("alice", "another"); err != nil {
		t.Error("the new password:", err)
	}
	if err := login("alice", password); !wire.HasCode(err, wire.CodeInvalidCredentials) {
		t.Errorf("the old password: %v", err)
	}
	if o.logins != 3 {
		t.Errorf("the other server has seen %d logins", o.logins)
	}
}
