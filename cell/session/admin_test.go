package session

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"quicproquo.dev/cell/admin"
	"quicproquo.dev/cell/authz"
	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// adminStub takes everybody for an admin whose token says so.
type adminStub struct {
	calls, denied, first atomic.Int64
	ended                atomic.Bool
	life                 time.Duration // 0: an hour.
}

func (a *adminStub) Authenticate(_ context.Context, r *wire.AdminAuthenticateRequest, _ []*x509.Certificate) (*wire.AdminSession, *admin.Admin, error) {
	roles := map[string]authz.Role{"admin": authz.CellAdmin, "auditor": authz.Auditor}
	role, ok := roles[string(r.Token)]
	if !ok {
		return nil, nil, wire.Errorf(wire.CodeInvalidToken, "nobody")
	}
	life := a.life
	if life == 0 {
		life = time.Hour
	}
	return &wire.AdminSession{Name: "test"}, &admin.Admin{Name: "test", Role: role, Expires: time.Now().Add(life)}, nil
}

func (a *adminStub) Check(*admin.Admin) error {
	if a.ended.Load() {
		return wire.Errorf(wire.CodeExpiredToken, "over")
	}
	return nil
}

func (a *adminStub) Call(context.Context, *admin.Admin, wire.Request) (wire.Response, error) {
	a.calls.Add(1)
	return &wire.Done{}, nil
}

func (a *adminStub) Denied(_ context.Context, _ authz.Subject, _ ids.ID, first bool) error {
	a.denied.Add(1)
	if first {
		a.first.Add(1)
	}
	return nil
}

// asked is what a request is answered on a connection without a network.
func (o *offline) asked(t *testing.T, r wire.Request) error {
	t.Helper()
	answers := make(chan error, 1)
	o.dispatch(r, func(_ wire.Response, err error) { answers <- err })
	select {
	case err := <-answers:
		return err
	case <-time.After(patience):
		t.Fatal("no answer")
		return nil
	}
}

func withAdmin(t testing.TB, authenticated bool) (*offline, *adminStub) {
	t.Helper()
	o, a := newOffline(t, authenticated), &adminStub{}
	o.Admin = a
	return o, a
}

func TestAdminCallsNeedAnAdmin(t *testing.T) {
	t.Parallel()
	invite := &wire.AdminInviteRequest{Count: 1}
	o, a := withAdmin(t, false)
	if err := o.asked(t, invite); !wire.HasCode(err, wire.CodeUnauthenticated) {
		t.Errorf("a stranger: %v", err)
	}
	for _, x := range []struct {
		token string
		code  wire.Code // 0: done.
	}{{"nobody", wire.CodeUnauthenticated}, {"auditor", wire.CodePermissionDenied}, {"admin", 0}, {"auditor", wire.CodePermissionDenied}, {"nobody", wire.CodePermissionDenied}} {
		_ = o.asked(t, &wire.AdminAuthenticateRequest{Token: []byte(x.token)})
		if err := o.asked(t, invite); x.code == 0 && err != nil || x.code != 0 && !wire.HasCode(err, x.code) {
			t.Errorf("after %s: %v", x.token, err)
		}
	}
	if a.calls.Load() != 1 || a.denied.Load() != 3 || a.first.Load() != 1 {
		t.Errorf("%d calls, %d denied, %d of them the first", a.calls.Load(), a.denied.Load(), a.first.Load())
	}
	a.ended.Store(true)
	if err := o.asked(t, &wire.AdminExportAuditRequest{}); !wire.HasCode(err, wire.CodeExpiredToken) {
		t.Errorf("a credential that has ended: %v", err)
	}
	o.end()
}

func TestAConnectionIsAnAdminsOrADevices(t *testing.T) {
	t.Parallel()
	o, _ := withAdmin(t, true)
	if err := o.asked(t, &wire.AdminAuthenticateRequest{Token: []byte("admin")}); !wire.HasCode(err, wire.CodePermissionDenied) || o.admin != nil {
		t.Errorf("a device's: %v", err)
	}
	if err := o.becomeAdmin(&admin.Admin{}); !wire.HasCode(err, wire.CodePermissionDenied) { // Asked at the same time.
		t.Errorf("a device's: %v", err)
	}
	o.end()
	o, a := withAdmin(t, false)
	if err := o.asked(t, &wire.AdminAuthenticateRequest{Token: []byte("admin")}); err != nil {
		t.Fatal(err)
	}
	stub := o.Identity.(*stubs)
	before := stub.calls.Load()
	for _, r := range []wire.Request{&wire.AuthenticateRequest{}, &wire.LoginStartRequest{}, &wire.StartDeviceLinkRequest{}, &wire.DeleteAccountRequest{}, &wire.EnqueueRequest{}, &wire.SubscribeRequest{}} {
		if err := o.asked(t, r); !wire.HasCode(err, wire.CodePermissionDenied) {
			t.Errorf("%s: %v", r.Method(), err)
		}
	}
	if err := o.become(stub.principal()); !wire.HasCode(err, wire.CodePermissionDenied) {
		t.Errorf("an admin's: %v", err)
	}
	if stub.calls.Load() != before || a.denied.Load() != 6 {
		t.Errorf("%d calls were made, %d denied", stub.calls.Load()-before, a.denied.Load())
	}
	o.end()
}

// refusing is an Authorizer of somebody else's.
type refusing struct {
	action authz.Action
	err    error
	asked  atomic.Pointer[authz.Object]
}

func (r *refusing) Authorize(ctx context.Context, s authz.Subject, a authz.Action, o authz.Object) error {
	if a != r.action {
		return authz.Table{}.Authorize(ctx, s, a, o)
	}
	r.asked.Store(&o)
	return r.err
}

// Whatever Authorizer there is decides, for every call; one that cannot decide lets nothing through.
func TestAnotherAuthorizer(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		err  error
		code wire.Code
	}{{&authz.DeniedError{Role: authz.Member, Action: authz.ClaimKeys}, wire.CodePermissionDenied}, {errors.New("away"), wire.CodeInternal}} {
		o, a := withAdmin(t, true)
		r := &refusing{action: authz.ClaimKeys, err: x.err}
		o.Authorizer = r
		err := o.asked(t, &wire.ClaimKeyPackagesRequest{AccountID: account})
		if got := o.errorOf("test", 1, err); got.Code != x.code {
			t.Errorf("%v: %v", x.err, got)
		}
		if object := r.asked.Load(); object == nil || object.Account != account {
			t.Errorf("it was asked about %+v", object)
		}
		if n := o.Identity.(*stubs).calls.Load(); n != 0 || a.denied.Load() != 0 {
			t.Errorf("%d calls were made, %d admin's denials recorded", n, a.denied.Load())
		}
		if err := o.asked(t, &wire.KeyPackageStatusRequest{}); err != nil {
			t.Errorf("what it allows: %v", err)
		}
		o.end()
	}
}

// An admin is not hurried, and is sent away when the credential ends.
func TestAnAdminsConnection(t *testing.T) {
	t.Parallel()
	a := &adminStub{life: time.Second}
	v := serve(t, func(v *served) {
		v.services.Admin = a
		hurried(v)
	})
	p := v.dial(t, windows{})
	p.send(&wire.AdminAuthenticateRequest{Token: []byte("admin")})
	if _, ok := p.receive().Body.(*wire.AdminSession); !ok {
		t.Fatal("not authenticated")
	}
	g, ok := p.receive().Body.(*wire.GoAway)
	if !ok || g.Reason != wire.GoAwayTokenExpired {
		t.Fatalf("%+v", g)
	}
}

// FuzzDispatchAdmin gives an admin's connection any frames: each is answered once, and none as a device's.
func FuzzDispatchAdmin(f *testing.F) {
	for _, b := range goldenRequests(f) {
		f.Add(b)
	}
	for _, r := range []wire.Request{&wire.AdminInviteRequest{Count: 1, Lifetime: time.Hour}, &wire.AdminExportAuditRequest{After: []byte{1}}, &wire.AdminAuthenticateRequest{Token: []byte("auditor")}} {
		b, err := wire.Marshal(wire.Envelope{CorrelationID: 7, Body: r})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		o, _ := withAdmin(t, false)
		if err := o.asked(t, &wire.AdminAuthenticateRequest{Token: []byte("admin")}); err != nil {
			t.Fatal(err)
		}
		want, r := map[uint64]int{}, bytes.NewReader(stream)
		for {
			b, err := frame.Read(r, frame.ControlLimit)
			if err != nil {
				break
			}
			e, _ := wire.Unmarshal(b)
			want[e.CorrelationID]++
			if !o.take(b, nothing) {
				t.Fatal("the session ended")
			}
		}
		for _, e := range o.end() {
			want[e.CorrelationID]--
		}
		for id, n := range want {
			if n != 0 {
				t.Errorf("correlation id %d: %d answers are missing", id, n)
			}
		}
		if testutil.ToFloat64(o.Metrics.Panics) != 0 || o.principal != nil {
			t.Errorf("%v panics; the connection is a device's: %v", testutil.ToFloat64(o.Metrics.Panics), o.principal != nil)
		}
	})
}
