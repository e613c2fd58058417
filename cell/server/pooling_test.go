package server_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/cell/server"
	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/internal/embeddedpg/pgtest"
	"quicproquo.dev/schema/wire"
)

// pooled has a cell reach its database through a transaction pooler, and know it.
func pooled(t *testing.T) []celltest.Option {
	t.Helper()
	return []celltest.Option{
		celltest.Through(func(database string) string { return pgtest.Pooler(t, database) }),
		celltest.WithConfig(func(c *server.Config) { c.DatabasePooling = store.PoolingTransaction }),
		celltest.Unlimited(),
	}
}

// Works behind a transaction pooler by polling.
func TestTheWholeCellWorksBehindATransactionPooler(t *testing.T) {
	t.Parallel()
	one := celltest.New(t, pooled(t)...)
	two := one.Replica(t)
	must(t, server.Migrate(t.Context(), one.Config(t), one.Logger())) // There is nothing to do; the lock is taken and given back.
	alice, bob, from, to := pair(t, one)
	subscribe(t, alice)
	caughtUp(t, alice)
	for i := range 50 {
		text := fmt.Sprint("through the pooler ", i)
		sent := celltest.Must[*wire.EnqueueResponse](alice.Conn, from.Message(t, text))
		if d := deliveryOf(t, bob); d.Seq != sent.Seq || d.PrevSeq != uint64(i) || to.Read(t, d) != text {
			t.Fatalf("%+v", d)
		}
		if d := deliveryOf(t, alice); d.Kind != wire.KindOwn || d.Seq != sent.Seq {
			t.Fatalf("%+v", d)
		}
	}
	on(two, bob)
	subscribe(t, bob)
	for came := false; !came; { // What was acknowledged a moment ago may come again before.
		came = isCaughtUp(bob.Conn.Push())
	}
	begin := time.Now()
	sent := celltest.Must[*wire.EnqueueResponse](alice.Conn, from.Message(t, "to another replica"))
	if d := deliveryOf(t, bob); d.Seq != sent.Seq || to.Read(t, d) != "to another replica" {
		t.Fatalf("%+v", d)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("a message took %s to another replica; polling should find it within a second or so", took)
	}
	again := celltest.Must[*wire.EnqueueResponse](alice.Conn, from.Message(t, "and then"))
	if again.Seq != sent.Seq+1 {
		t.Errorf("sequence %d after %d", again.Seq, sent.Seq)
	}
	login := one.Dial(t)
	if _, err := alice.LoginOn(login, alice.Name, alice.Password); err != nil {
		t.Errorf("login: %v", err)
	}
	for _, c := range []*celltest.Cell{one, two} {
		for line := range strings.Lines(c.Log.String()) {
			if strings.Contains(line, "durability is reduced") {
				continue // As it is in tests.
			}
			if strings.Contains(line, `"level":"ERROR"`) || strings.Contains(line, `"level":"WARN"`) && strings.Contains(line, "SQLSTATE") {
				t.Error(line)
			}
		}
	}
}

// A configuration that does not mention the pooler: LISTEN seems to work and hears nothing. The cell finds out and says what to write.
func TestAPoolerThatTheConfigurationDoesNotMentionIsNoticed(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes as long as a silence that is taken for death")
	}
	c := celltest.New(t, celltest.Through(func(database string) string {
		return pgtest.Pooler(t, database) + "&default_query_exec_mode=cache_describe"
	}))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !strings.Contains(c.Log.String(), "databasePooling: transaction") {
		select {
		case <-ctx.Done():
			t.Fatal("the log does not say what to write into the configuration")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
