package server_test

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/internal/embeddedpg"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// ownDatabase is a PostgreSQL that a test may stop and start again, at the same port.
type ownDatabase struct {
	t       *testing.T
	options embeddedpg.Options
	server  *embeddedpg.Server
}

func newOwnDatabase(t *testing.T) *ownDatabase {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	d := &ownDatabase{t: t, options: embeddedpg.Options{Dir: filepath.Join(t.TempDir(), "pg"), Port: port, NoFsync: true}}
	d.start()
	t.Cleanup(func() {
		d.stop()
		if err := embeddedpg.Remove(d.options.Dir); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *ownDatabase) start() {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.t.Context()), 2*time.Minute)
	defer cancel()
	var err error
	if d.server, err = embeddedpg.Start(ctx, d.options); err != nil {
		d.t.Fatal(err)
	}
}

func (d *ownDatabase) stop() {
	d.t.Helper()
	if d.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := d.server.Stop(ctx); err != nil {
		d.t.Error(err)
	}
	d.server = nil
}

// until repeats a request as a client does, as long as the cell is busy.
func until(t *testing.T, c *celltest.Conn, r wire.Request) wire.Response {
	t.Helper()
	for end := time.Now().Add(celltest.Patience); ; time.Sleep(50 * time.Millisecond) {
		body, err := c.Call(r)
		if err == nil {
			return body
		}
		if !wire.HasCode(err, wire.CodeBusy) || time.Now().After(end) {
			t.Fatalf("%s: %v", r.Method(), err)
		}
	}
}

func TestTheDatabaseGoesAndComesBack(t *testing.T) {
	t.Parallel()
	db := newOwnDatabase(t)
	c := celltest.New(t, celltest.WithDatabase(db.server.URL()))
	alice, bob, from, to := pair(t, c)
	celltest.Must[*wire.EnqueueResponse](alice.Conn, from.Message(t, "before"))
	if d := deliveryOf(t, bob); to.Read(t, d) != "before" {
		t.Fatalf("%+v", d)
	}

	db.stop()
	pending := from.Message(t, "sent into the outage")
	for _, r := range []wire.Request{pending, &wire.KeyPackageStatusRequest{}, &wire.OpenDMRequest{AccountID: bob.Certificate.AccountID},
		&wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: bob.Certificate.AccountID}} {
		if err := alice.Conn.Refused(r, wire.CodeBusy); !err.Retryable || err.RetryAfter <= 0 {
			t.Errorf("%s: %+v", r.Method(), err)
		}
	}
	again := c.Dial(t) // Who has a token gets in without the database.
	celltest.Must[*wire.AuthenticateResponse](again, &wire.AuthenticateRequest{AccessToken: alice.Session.AccessToken, Proof: alice.Proof(again)})
	again.Close()
	if got := c.Ops(t, "/readyz"); !strings.Contains(got, "ok") {
		t.Errorf("not ready, which cuts every connection: %s", got)
	}

	db.start()
	first := until(t, alice.Conn, pending).(*wire.EnqueueResponse)
	if d := deliveryOf(t, bob); d.Seq != first.Seq || to.Read(t, d) != "sent into the outage" {
		t.Fatalf("%+v", d)
	}
	if second := until(t, alice.Conn, pending).(*wire.EnqueueResponse); second.Seq != first.Seq || !second.Duplicate {
		t.Fatalf("the retry: %+v after %+v", second, first)
	}
	if log := c.Log.String(); strings.Contains(log, `"request failed"`) {
		t.Error("an outage looks like a fault of the cell in the log")
	}

	db.stop() // And the cell is asked to end.
	begin := time.Now()
	c.Stop(t)
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("stopping took %s", took)
	}
}
