package store

import (
	"sync"
	"testing"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

// Many share one connection: how a transaction has ended must be known before the next one has the connection. The race
// detector finds it when it is looked at later.
func TestATransactionsEndIsJudgedWhileItsConnectionIsItsOwn(t *testing.T) {
	t.Parallel()
	_, uri := freshAudit(t)
	s, err := Open(t.Context(), Options{URI: uri, Sealer: testSealer(t, 1), MaxConns: 1})
	must(t, err)
	t.Cleanup(s.Close)
	must(t, s.EnableAudit(t.Context(), auditKeys(t, 1)))
	a, d := person(t, s, "alice")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				id := ids.New()
				if err := s.EndSession(t.Context(), id, time.Now(), audit.SessionEnded(a.ID, d.ID, id, audit.ReasonLogout)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	wantVerified(t, s, -1)
}
