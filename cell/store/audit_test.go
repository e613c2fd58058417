package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/internal/embeddedpg/pgtest"
	"quicproquo.dev/schema/ids"
)

func auditKeys(t testing.TB, seeds ...byte) *audit.Keys {
	t.Helper()
	var all [][]byte
	for _, b := range seeds {
		all = append(all, bytes.Repeat([]byte{b}, 32))
	}
	k, err := audit.NewKeys(all...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// process is a store as a process of its own has it: with chains of its own.
func process(t *testing.T, uri string) *Store {
	t.Helper()
	s := open(t, uri, 1)
	must(t, s.EnableAudit(t.Context(), auditKeys(t, 1)))
	return s
}

// audited returns a migrated store that keeps an audit log, and its database.
func freshAudit(t *testing.T) (*Store, string) {
	t.Helper()
	uri := pgtest.New(t)
	must(t, open(t, uri, 1).Migrate(t.Context(), quiet))
	return process(t, uri), uri
}

func checkpoint(t *testing.T, s *Store) *audit.Progress {
	t.Helper()
	p, err := s.CheckpointAudit(t.Context(), time.Now())
	must(t, err)
	if p == nil {
		t.Fatal("somebody else is at the checkpoint")
	}
	return p
}

// tail makes a Verifier a visitor.
type verifying struct{ audit.Verifier }

func verifyAudit(t *testing.T, s *Store, anchors ...audit.Anchor) (audit.Report, error) {
	t.Helper()
	return verifyAs(t, s, s.audit.keys.Trust(), s.audit.keys, anchors...)
}

func verifyAs(t *testing.T, s *Store, trust audit.Trust, keys *audit.Keys, anchors ...audit.Anchor) (audit.Report, error) {
	t.Helper()
	v := &verifying{audit.Verifier{Trust: trust, Keys: keys, Cell: s.audit.cell.ID, Anchors: anchors}}
	if err := s.VisitAudit(t.Context(), 0, v); err != nil {
		return audit.Report{}, err
	}
	return v.Finish()
}

func wantVerified(t *testing.T, s *Store, rows int) audit.Report {
	t.Helper()
	r, err := verifyAudit(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if rows >= 0 && r.Rows != uint64(rows) {
		t.Fatalf("%d rows, want %d: %+v", r.Rows, rows, r)
	}
	return r
}

func wantFault(t *testing.T, s *Store, kinds ...audit.FaultKind) *audit.Fault {
	t.Helper()
	_, err := verifyAudit(t, s)
	var f *audit.Fault
	if !errors.As(err, &f) || !slices.Contains(kinds, f.Kind) {
		t.Fatalf("want %v, got %v", kinds, err)
	}
	return f
}

// tamper runs SQL as the superuser does who knows of the triggers.
func tamper(t testing.TB, s *Store, sql string, args ...any) {
	t.Helper()
	err := s.tx(context.Background(), func(tx pgx.Tx) error {
		if _, err := tx.Exec(context.Background(), `SET LOCAL session_replication_role = replica`); err != nil {
			return err
		}
		tag, err := tx.Exec(context.Background(), sql, args...)
		if err == nil && tag.RowsAffected() == 0 && !strings.HasPrefix(sql, "ALTER") {
			return fmt.Errorf("%s changed nothing", sql)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// fill writes n events on their own, and returns the chain they are in.
func fill(t *testing.T, s *Store, n int) ids.ID {
	t.Helper()
	for i := range n {
		must(t, s.WriteAudit(t.Context(), audit.LoginFailed(ids.ID{}, audit.ReasonUnknownName), audit.EventsSuppressed(uint64(i)))) //nolint:gosec // small.
	}
	return s.audit.free[len(s.audit.free)-1].writer
}

func count(t *testing.T, s *Store, sql string, args ...any) (n int) {
	t.Helper()
	must(t, s.pool.QueryRow(t.Context(), sql, args...).Scan(&n))
	return n
}

func TestEventsAreStoredWithWhatTheyTellOf(t *testing.T) {
	t.Parallel()
	s, _ := freshAudit(t)
	now := time.Now()
	a := Account{ID: ids.New(), Name: "alice", RootKey: make([]byte, 32), OPAQUERecord: []byte("r"), WrappedRootKey: []byte("w"), CreatedAt: now}
	d := Device{ID: ids.New(), AccountID: a.ID, Key: make([]byte, 32), Certificate: []byte("c"), CreatedAt: now}
	n := Session{ID: ids.New(), DeviceID: d.ID, RefreshHash: []byte("h"), CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
	must(t, s.CreateAccount(t.Context(), a, d, n, audit.AccountCreated(a.ID, d.ID, n.ID, audit.ReasonNone)))
	if rows := count(t, s, `SELECT count(*) FROM audit_events`); rows != 2 {
		t.Fatalf("%d rows, want the chain's first and the event", rows)
	}
	again := a
	again.ID = ids.New()
	if err := s.CreateAccount(t.Context(), again, d, n, audit.AccountCreated(again.ID, d.ID, n.ID, audit.ReasonNone)); !errors.Is(err, ErrExists) {
		t.Fatal(err)
	}
	if rows := count(t, s, `SELECT count(*) FROM audit_events`); rows != 2 {
		t.Errorf("%d rows: an account that was not made left an event", rows)
	}
	refused := errors.New("refused")
	err := s.UpdateSession(t.Context(), n.ID, now, func(*Session) (bool, audit.Event, error) {
		return true, audit.SessionRevoked(audit.ByCell(), a.ID, d.ID, n.ID, audit.ReasonReusedToken), refused
	})
	if !errors.Is(err, refused) {
		t.Fatal(err)
	}
	err = s.UpdateSession(t.Context(), n.ID, now, func(*Session) (bool, audit.Event, error) {
		return false, audit.RefreshRefused(a.ID, d.ID, audit.ReasonInvalidToken), refused
	})
	if !errors.Is(err, refused) {
		t.Fatal(err)
	}
	wantVerified(t, s, 4) // The chain goes on behind what was rolled back.
	ref, err := s.AuditRef(t.Context(), a.ID)
	must(t, err)
	e := exportOf(t, s, audit.Filter{Account: ref})
	for _, want := range []string{"account.created", "auth.session_revoked", "reused_token", "auth.session_refreshed"} {
		if !strings.Contains(e, want) {
			t.Errorf("%s is not exported:\n%s", want, e)
		}
	}
}

// exportOf signs a checkpoint and exports.
func exportOf(t *testing.T, s *Store, f audit.Filter) string {
	t.Helper()
	checkpoint(t, s)
	var out bytes.Buffer
	x, err := audit.NewExporter(&out, s.audit.cell.ID, 0, false)
	must(t, err)
	x.Filter = f
	must(t, s.VisitAudit(t.Context(), 0, x))
	return out.String()
}

func TestThousandsOfEventsOfManyWriters(t *testing.T) {
	t.Parallel()
	first, uri := freshAudit(t)
	const processes, writers, each = 3, 6, 120
	all := []*Store{first, process(t, uri), process(t, uri)}
	_, alice := person(t, first, "alice")
	var working sync.WaitGroup
	ctx := context.Background()
	for _, s := range all[:processes] {
		for w := range writers {
			working.Go(func() {
				for i := range each {
					e := []audit.Event{audit.SessionRefreshed(alice.AccountID, alice.ID, ids.New()), audit.LoginFailed(ids.ID{}, audit.ReasonUnknownName)}
					if err := s.WriteAudit(audit.WithAddress(ctx, netip.MustParseAddr("192.0.2.1")), e...); err != nil {
						t.Errorf("writer %d, event %d: %v", w, i, err)
						return
					}
				}
			})
		}
	}
	stop := make(chan struct{})
	var signing sync.WaitGroup
	for _, s := range all { // Every process tries to make checkpoints all the time.
		signing.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if p, err := s.CheckpointAudit(ctx, time.Now()); err != nil || p != nil && len(p.Faults) > 0 {
					t.Errorf("%+v, %v", p, err)
					return
				}
			}
		})
	}
	working.Wait()
	close(stop)
	signing.Wait()
	checkpoint(t, first)
	chains := count(t, first, `SELECT count(DISTINCT writer) FROM audit_events`)
	r := wantVerified(t, first, 2*processes*writers*each+chains)
	if r.Chains != chains || r.Unsigned != 0 || r.Checkpoints < 3 || chains < processes || chains > processes*writers {
		t.Errorf("%+v with %d chains", r, chains)
	}
	for _, s := range all {
		must(t, s.EndAuditChains(ctx))
	}
	if r := wantVerified(t, first, 2*processes*writers*each+2*chains); r.Unsigned != uint64(chains) {
		t.Errorf("%+v", r)
	}
}

// Each kind of tampering, by a superuser who goes round the triggers, is found and its first row is named.
func TestTamperingIsFound(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		change func(t *testing.T, s *Store, w ids.ID)
		kind   audit.FaultKind
		seq    uint64
		number uint64
	}{
		"an edited body": {func(t *testing.T, s *Store, w ids.ID) {
			tamper(t, s, `UPDATE audit_events SET body = set_byte(body, 3, 1) WHERE writer = $1 AND seq = 4`, w)
		}, audit.FaultEdited, 4, 0},
		"an edited hash": {func(t *testing.T, s *Store, w ids.ID) {
			tamper(t, s, `UPDATE audit_events SET hash = set_byte(hash, 3, get_byte(hash, 3) # 1) WHERE writer = $1 AND seq = 4`, w)
		}, audit.FaultEdited, 4, 0},
		"an edited previous hash": {func(t *testing.T, s *Store, w ids.ID) {
			tamper(t, s, `UPDATE audit_events SET prev_hash = set_byte(prev_hash, 3, get_byte(prev_hash, 3) # 1) WHERE writer = $1 AND seq = 4`, w)
		}, audit.FaultEdited, 4, 0},
		"an edited MAC": {func(t *testing.T, s *Store, w ids.ID) {
			tamper(t, s, `UPDATE audit_events SET mac = set_byte(mac, 3, get_byte(mac, 3) # 1) WHERE writer = $1 AND seq = 4`, w)
		}, audit.FaultNotOurs, 4, 0},
		"a hash cut short": {func(t *testing.T, s *Store, w ids.ID) {
			tamper(t, s, `UPDATE audit_events SET hash = substr(hash, 1, 31) WHERE writer = $1 AND seq = 4`, w)
		}, audit.FaultEdited, 4, 0},
		"a deleted row": {func(t *testing.T, s *Store, w ids.ID) {
			tamper(t, s, `DELETE FROM audit_events WHERE writer = $1 AND seq = 4`, w)
		}, audit.FaultMissing, 4, 0},
		"a deleted first row": {func(t *testing.T, s *Store, w ids.ID) {
			tamper(t, s, `DELETE FROM audit_events WHERE writer = $1 AND seq = 1`, w)
		}, audit.FaultMissing, 1, 0},
		"a deleted tail, to the middle of a checkpoint": {func(t *testing.T, s *Store, w ids.ID) {
			tamper(t, s, `DELETE FROM audit_events WHERE writer = $1 AND seq > 15`, w)
		}, audit.FaultMissing, 16, 2},
		"a deleted tail, to the end of the first checkpoint": {func(t *testing.T, s *Store, w ids.ID) {
			tamper(t, s, `DELETE FROM audit_events WHERE writer = $1 AND seq > 11`, w)
		}, audit.FaultMissing, 12, 2},
		"a deleted chain": {func(t *testing.T, s *Store, w ids.ID) {
			tamper(t, s, `DELETE FROM audit_events WHERE writer = $1`, w)
		}, audit.FaultMissingChain, 1, 1},
		"two rows exchanged": {func(t *testing.T, s *Store, w ids.ID) {
			tamper(t, s, `UPDATE audit_events a SET body = b.body, hash = b.hash, prev_hash = b.prev_hash, mac = b.mac FROM audit_events b
				WHERE a.writer = $1 AND b.writer = $1 AND (a.seq, b.seq) IN ((4, 5), (5, 4))`, w)
		}, audit.FaultEdited, 4, 0},
		"a forged checkpoint": {func(t *testing.T, s *Store, _ ids.ID) {
			tamper(t, s, `UPDATE audit_checkpoints SET body = set_byte(body, 100, get_byte(body, 100) # 1) WHERE number = 2`)
		}, audit.FaultForgedCheckpoint, 0, 2},
		"a checkpoint signed with another key": {func(t *testing.T, s *Store, _ ids.ID) {
			var body []byte
			must(t, s.pool.QueryRow(t.Context(), `SELECT body FROM audit_checkpoints WHERE number = 2`).Scan(&body))
			c, err := audit.DecodeCheckpoint(body)
			must(t, err)
			forged := auditKeys(t, 99).Sign(c)
			tamper(t, s, `UPDATE audit_checkpoints SET public_key = $1, signature = $2 WHERE number = 2`, []byte(forged.Key), forged.Signature)
		}, audit.FaultForeignKey, 0, 2},
		"a deleted checkpoint": {func(t *testing.T, s *Store, _ ids.ID) {
			tamper(t, s, `DELETE FROM audit_checkpoints WHERE number = 1`)
		}, audit.FaultMissingCheckpoint, 0, 1},
		"the last checkpoint deleted without its heads": {func(t *testing.T, s *Store, _ ids.ID) {
			tamper(t, s, `DELETE FROM audit_checkpoints WHERE number = 2`)
		}, audit.FaultMissingCheckpoint, 0, 2},
		"a checkpoint's heads edited": {func(t *testing.T, s *Store, _ ids.ID) {
			tamper(t, s, `UPDATE audit_checkpoint_heads SET seq = seq - 1 WHERE number = 2`)
		}, audit.FaultCopy, 0, 2},
		"a checkpoint's heads deleted": {func(t *testing.T, s *Store, _ ids.ID) {
			tamper(t, s, `DELETE FROM audit_checkpoint_heads WHERE number = 2`)
		}, audit.FaultCopy, 0, 2},
		"a checkpoint's time edited": {func(t *testing.T, s *Store, _ ids.ID) {
			tamper(t, s, `UPDATE audit_checkpoints SET at = at - interval '1 year' WHERE number = 2`)
		}, audit.FaultCopy, 0, 2},
		"a row in the tail edited": {func(t *testing.T, s *Store, w ids.ID) {
			tamper(t, s, `UPDATE audit_events SET body = set_byte(body, 3, 1) WHERE writer = $1 AND seq = 24`, w)
		}, audit.FaultEdited, 24, 0},
		"a row in the tail deleted before another": {func(t *testing.T, s *Store, w ids.ID) {
			tamper(t, s, `DELETE FROM audit_events WHERE writer = $1 AND seq = 24`, w)
		}, audit.FaultMissing, 24, 0},
		"a row appended with the right hash": {func(t *testing.T, s *Store, w ids.ID) {
			appendForged(t, s, w, 26)
		}, audit.FaultNotOurs, 26, 0},
		"a pruning that nobody signed": {func(t *testing.T, s *Store, _ ids.ID) {
			tamper(t, s, `INSERT INTO audit_prunings SELECT 1, now(), body, public_key, signature FROM audit_checkpoints WHERE number = 1`)
		}, audit.FaultForgedCheckpoint, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := freshAudit(t)
			w := fill(t, s, 5)
			checkpoint(t, s) // To row 11.
			fill(t, s, 5)
			checkpoint(t, s) // To row 21.
			fill(t, s, 2)    // To row 25, unsigned.
			if r := wantVerified(t, s, 25); r.Unsigned != 4 {
				t.Fatalf("%+v", r)
			}
			x.change(t, s, w)
			f := wantFault(t, s, x.kind)
			if f.Seq != x.seq || f.Checkpoint != x.number || x.seq > 0 && f.Writer != w {
				t.Errorf("got %v", f)
			}
		})
	}
}

// appendForged adds a row as somebody would who has the database, but not the cell's keys.
func appendForged(t *testing.T, s *Store, w ids.ID, seq uint64) {
	t.Helper()
	rows, err := s.pool.Query(t.Context(), `SELECT `+rowColumns+` FROM audit_events WHERE writer = $1 AND seq = $2`, w, seq-1)
	must(t, err)
	last, err := pgx.CollectExactlyOneRow(rows, scanRow)
	must(t, err)
	r := auditKeys(t, 99).Next(s.audit.cell.ID, w, audit.Head{Seq: last.Seq, Hash: last.Hash}, last.Body)
	tamper(t, s, `INSERT INTO audit_events (`+rowColumns+`) VALUES ($1, $2, $3, $4, $5, $6)`, r.Writer, r.Seq, r.Prev[:], r.Body, r.Hash[:], r.MAC[:])
}

// The cell signs nothing that it did not write, and signs the other chains on.
func TestForgedRowsAreNotSigned(t *testing.T) {
	t.Parallel()
	s, uri := freshAudit(t)
	w := fill(t, s, 2)
	other := process(t, uri)
	v := fill(t, other, 1)
	checkpoint(t, s)
	appendForged(t, s, w, 6)
	fill(t, other, 1)
	p := checkpoint(t, s)
	if len(p.Faults) != 1 || p.Faults[0].Kind != audit.FaultNotOurs || p.Faults[0].Writer != w || p.Faults[0].Seq != 6 || p.Made.Number != 2 || p.Rows != 2 {
		t.Fatalf("%+v", p)
	}
	if n := count(t, s, `SELECT max(seq) FROM audit_checkpoint_heads WHERE writer = $1`, v); n != 5 {
		t.Errorf("the other chain is signed to row %d", n)
	}
	if f := wantFault(t, s, audit.FaultNotOurs); f.Seq != 6 {
		t.Errorf("%v", f)
	}
	// A chain that somebody invents is not signed either.
	tamper(t, s, `INSERT INTO audit_events SELECT gen_random_uuid(), seq, prev_hash, body, hash, mac FROM audit_events WHERE writer = $1 AND seq = 1`, v)
	if p := checkpoint(t, s); len(p.Faults) != 2 || p.Made.Number != 0 {
		t.Fatalf("%+v", p)
	}
}

// Rows that a checkpoint has signed and that are gone, and a head that somebody invents so that nothing more is signed,
// are found by the next checkpoint.
func TestTheNextCheckpointMissesSignedRows(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{
		"a deleted tail":   `DELETE FROM audit_events WHERE writer = $1 AND seq > 5`,
		"an invented head": `INSERT INTO audit_checkpoint_heads SELECT $1, 1000, 1, hash FROM audit_checkpoint_heads LIMIT 1`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, uri := freshAudit(t)
			w := fill(t, s, 5)
			checkpoint(t, s)
			tamper(t, s, change, w)
			fill(t, process(t, uri), 1)
			p := checkpoint(t, s)
			if len(p.Faults) != 1 || p.Faults[0].Kind != audit.FaultMissing || p.Faults[0].Writer != w || p.Rows != 3 {
				t.Errorf("%+v", p)
			}
			_ = wantFault(t, s, audit.FaultMissing, audit.FaultCopy)
		})
	}
}

func TestNothingIsSignedBehindAForgedCheckpoint(t *testing.T) {
	t.Parallel()
	s, _ := freshAudit(t)
	fill(t, s, 2)
	checkpoint(t, s)
	fill(t, s, 1)
	tamper(t, s, `UPDATE audit_checkpoints SET signature = set_byte(signature, 0, get_byte(signature, 0) # 1)`)
	_, err := s.CheckpointAudit(t.Context(), time.Now())
	var f *audit.Fault
	if !errors.As(err, &f) || f.Kind != audit.FaultForgedCheckpoint || f.Checkpoint != 1 {
		t.Errorf("got %v", err)
	}
}

// A process that is killed leaves whole events: what was committed is in its chain, what was not is nowhere, and the
// next process begins chains of its own.
func TestKilledBetweenEvents(t *testing.T) {
	t.Parallel()
	s, uri := freshAudit(t)
	fill(t, s, 3)
	dying := open(t, uri, 1)
	must(t, dying.EnableAudit(t.Context(), auditKeys(t, 1)))
	fill(t, dying, 2)
	written := make(chan struct{})
	ctx, kill := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- dying.audited(ctx, func(tx pgx.Tx, r *recording) error {
			if err := r.send(ctx, &pgx.Batch{}, audit.ChainEnded()); err != nil {
				return err
			}
			close(written)
			<-ctx.Done() // Killed with the row written and not committed.
			return errors.Join(ctx.Err(), tx.Conn().PgConn().Conn().Close())
		})
	}()
	<-written
	checkpoint(t, s)
	kill()
	if err := <-done; err == nil {
		t.Fatal("the transaction committed")
	}
	next := process(t, uri)
	fill(t, next, 1)
	checkpoint(t, next)
	if r := wantVerified(t, next, 7+5+3); r.Chains != 3 {
		t.Errorf("%+v", r)
	}
	fill(t, dying, 1) // Were it alive after all: it does not go on with a chain of which it does not know the end.
	if n := count(t, s, `SELECT count(DISTINCT writer) FROM audit_events`); n != 4 {
		t.Errorf("%d chains", n)
	}
	wantVerified(t, next, 15+3)
}

// A process that lives on while the database loses its last rows, by a lossy failover or by somebody's hand, tells.
func TestAProcessNoticesThatItsRowsAreGone(t *testing.T) {
	t.Parallel()
	s, _ := freshAudit(t)
	w := fill(t, s, 3)
	tamper(t, s, `DELETE FROM audit_events WHERE writer = $1 AND seq > 5`, w)
	if _, err := verifyAudit(t, s); err != nil {
		t.Fatal("without a checkpoint only the process knows:", err)
	}
	fill(t, s, 1)
	e := exportOf(t, s, audit.Filter{Kinds: []audit.Kind{audit.KindChainLost}})
	if !strings.Contains(e, `"kind":"audit.chain_lost"`) || !strings.Contains(e, `"details":{"lane":1,"seq":7}`) {
		t.Errorf("nothing is told:\n%s", e)
	}
	wantVerified(t, s, 5+2+2)
}

// A database restored to an earlier state is a good log by itself. Against a checkpoint that was kept it is a fork.
func TestARestoreIsAFork(t *testing.T) {
	t.Parallel()
	s, uri := freshAudit(t)
	fill(t, s, 2)
	checkpoint(t, s)
	config := s.pool.Config().ConnConfig
	copied := config.Database + "_restored"
	admin, err := pgx.Connect(t.Context(), pgtest.Server(t).DatabaseURL("postgres"))
	must(t, err)
	t.Cleanup(func() { must(t, admin.Close(context.Background())) })
	s.Close()
	for { // A template must have no users.
		_, err = admin.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1`, config.Database)
		must(t, err)
		_, err = admin.Exec(t.Context(), fmt.Sprintf(`CREATE DATABASE %s TEMPLATE %s`, copied, config.Database))
		if err == nil || !strings.Contains(err.Error(), "being accessed") {
			break
		}
	}
	must(t, err)
	t.Cleanup(func() {
		_, err = admin.Exec(context.Background(), fmt.Sprintf(`DROP DATABASE %s WITH (FORCE)`, copied))
		must(t, err)
	})
	original := process(t, uri)
	fill(t, original, 3)
	kept := checkpoint(t, original).Made
	restored := process(t, pgtest.Server(t).DatabaseURL(copied))
	t.Cleanup(restored.Close)
	if _, err := verifyAudit(t, restored); err != nil {
		t.Fatal(err)
	}
	var f *audit.Fault
	if _, err := verifyAudit(t, restored, kept); !errors.As(err, &f) || f.Kind != audit.FaultFork || f.Checkpoint != 2 || !strings.Contains(f.Detail, "restored to an earlier state") {
		t.Errorf("restored: %v", err)
	}
	fill(t, restored, 1)
	checkpoint(t, restored)
	wantVerified(t, restored, -1)
	if _, err := verifyAudit(t, restored, kept); !errors.As(err, &f) || f.Kind != audit.FaultFork || f.Checkpoint != 2 {
		t.Errorf("restored and gone on: %v", err)
	}
	if _, err := verifyAudit(t, original, kept); err != nil {
		t.Error(err)
	}
}

func TestAccountDeletionErasesThePseudonym(t *testing.T) {
	t.Parallel()
	for name, erase := range map[string]func(t *testing.T, s *Store, a Account, d Device){
		"by itself": func(t *testing.T, s *Store, a Account, _ Device) {
			must(t, s.EraseAuditSubject(t.Context(), a.ID, audit.AccountDeleted(audit.ByAccount(a.ID), a.ID, 1)))
		},
		"with the account's row": func(t *testing.T, s *Store, a Account, d Device) {
			for _, sql := range []string{`DELETE FROM sessions WHERE device_id = $1`, `DELETE FROM cursors WHERE device_id = $1`, `DELETE FROM devices WHERE device_id = $1`} {
				_, err := s.pool.Exec(t.Context(), sql, d.ID)
				must(t, err)
			}
			_, err := s.pool.Exec(t.Context(), `DELETE FROM accounts WHERE account_id = $1`, a.ID)
			must(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := freshAudit(t)
			a, d := person(t, s, "alice")
			b, _ := person(t, s, "bob")
			must(t, s.WriteAudit(t.Context(), audit.SessionStarted(a.ID, d.ID, ids.New()), audit.AccountBlocked(b.ID, ids.ID{}, a.ID)))
			ref, err := s.AuditRef(t.Context(), a.ID)
			must(t, err)
			if got, err := s.AuditAccount(t.Context(), ref); err != nil || got != a.ID {
				t.Fatalf("%v, %v", got, err)
			}
			checkpoint(t, s)
			before := wantVerified(t, s, 3)
			erase(t, s, a, d)
			if _, err := s.AuditRef(t.Context(), a.ID); !errors.Is(err, ErrNotFound) {
				t.Errorf("the account still has a pseudonym: %v", err)
			}
			if got, err := s.AuditAccount(t.Context(), ref); !errors.Is(err, ErrNotFound) {
				t.Errorf("the pseudonym still has an account: %v, %v", got, err)
			}
			if _, err := s.AuditRef(t.Context(), b.ID); err != nil {
				t.Errorf("the other account's is gone too: %v", err)
			}
			after := wantVerified(t, s, -1)
			if after.Last != before.Last {
				t.Errorf("%+v, %+v", before, after)
			}
			if e := exportOf(t, s, audit.Filter{Account: ref}); !strings.Contains(e, "auth.session_started") {
				t.Error("the records are gone")
			}
			if name == "by itself" && !strings.Contains(exportOf(t, s, audit.Filter{Account: ref}), "account.deleted") {
				t.Error("the deletion is not recorded under the pseudonym")
			}
		})
	}
}

// What is said of an account that is not there, or was deleted meanwhile, names nobody and fails nothing.
func TestEventsAboutNobody(t *testing.T) {
	t.Parallel()
	s, _ := freshAudit(t)
	must(t, s.WriteAudit(t.Context(), audit.LoginFailed(ids.New(), audit.ReasonWrongPassword), audit.Event{}))
	wantVerified(t, s, 2)
	if e := exportOf(t, s, audit.Filter{Kinds: []audit.Kind{audit.KindLogin}}); strings.Contains(e, "subject") {
		t.Errorf("%s", e)
	}
}

// Nothing of the ids and addresses that events are made of is in the tables, for who has not the cell's keys.
func TestTheTablesNameNobody(t *testing.T) {
	t.Parallel()
	s, _ := freshAudit(t)
	a, d := person(t, s, "alice")
	session, channel, address := ids.New(), ids.New(), netip.MustParseAddr("203.0.113.77")
	ctx := audit.WithAddress(t.Context(), address)
	must(t, s.WriteAudit(ctx, audit.SessionStarted(a.ID, d.ID, session), audit.ChannelDenied(a.ID, d.ID, channel, audit.ReasonNotMember),
		audit.AccountDisabled(audit.ByAdmin("cn=Marked Admin"), a.ID)))
	checkpoint(t, s)
	ref, err := s.AuditRef(ctx, a.ID)
	must(t, err)
	for _, table := range []string{"audit_events", "audit_checkpoints", "audit_checkpoint_heads", "audit_subjects", "audit_address_keys"} {
		rows, err := s.pool.Query(ctx, `SELECT t::text || encode(t::text::bytea, 'escape') FROM `+table+` t`)
		must(t, err)
		texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
		must(t, err)
		if len(texts) == 0 {
			t.Errorf("%s is empty", table)
		}
		text := strings.ReplaceAll(strings.Join(texts, "\n"), "-", "")
		four := address.As4()
		for what, secret := range map[string]string{"device": d.ID.String(), "session": session.String(), "channel": channel.String(), "address": fmt.Sprintf("%x", four),
			"address in text": fmt.Sprintf("%x", address.String()), "admin": fmt.Sprintf("%x", "Marked Admin"), "name": fmt.Sprintf("%x", "alice")} {
			if strings.Contains(text, secret) {
				t.Errorf("%s holds the %s", table, what)
			}
		}
		for what, both := range map[string]string{"account": a.ID.String(), "pseudonym": ref.String()} {
			if has := strings.Contains(text, both); has != (what == "account" && table == "audit_subjects" || what == "pseudonym" && table == "audit_events") {
				t.Errorf("%s, %s: %v", table, what, has)
			}
		}
	}
}

func TestAddressKeysAreForgotten(t *testing.T) {
	t.Parallel()
	s, uri := freshAudit(t)
	ctx := audit.WithAddress(t.Context(), netip.MustParseAddr("203.0.113.77"))
	now := time.Now()
	ages := []int{0, 1, 3, 4, 5}
	for _, age := range ages {
		must(t, s.WriteAudit(ctx, audit.AdminRefused(audit.ReasonInvalidToken).At(now.Add(-time.Duration(age)*audit.AddressPeriod))))
	}
	if n := count(t, s, `SELECT count(*) FROM audit_address_keys`); n != len(ages) {
		t.Fatalf("%d keys", n)
	}
	must(t, process(t, uri).WriteAudit(ctx, audit.AdminRefused(audit.ReasonInvalidToken).At(now))) // The same key as the other process's.
	e := exportOf(t, s, audit.Filter{Kinds: []audit.Kind{audit.KindAdminLogin}})
	seen := map[string]int{}
	for _, part := range strings.Split(e, `"address":"`)[1:] {
		seen[part[:16]]++
	}
	if len(seen) != len(ages) {
		t.Errorf("%v", seen)
	}
	must(t, s.SweepAuditKeys(ctx, now))
	if n := count(t, s, `SELECT count(*) FROM audit_address_keys`); n != 3 {
		t.Errorf("%d keys are left", n)
	}
}

// A log of random events with a random change of one row, by a superuser, never verifies.
func TestAnyChangeOfOneRowIsFound(t *testing.T) {
	t.Parallel()
	s, uri := freshAudit(t)
	random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano()))) //nolint:gosec // any seed.
	a, d := person(t, s, "alice")
	all := []*Store{s, process(t, uri), process(t, uri)}
	events := []audit.Event{audit.LoginSucceeded(a.ID), audit.SessionStarted(a.ID, d.ID, ids.New()), audit.LoginFailed(ids.ID{}, audit.ReasonUnknownName),
		audit.PackagesUploaded(a.ID, d.ID, 20, true), audit.AdminRefused(audit.ReasonInvalidToken)}
	for range 60 {
		from := all[random.IntN(len(all))]
		must(t, from.WriteAudit(t.Context(), slices.Repeat(events[random.IntN(len(events)):], 1+random.IntN(2))...))
		if random.IntN(6) == 0 {
			checkpoint(t, s)
		}
	}
	checkpoint(t, s)
	total := int(wantVerified(t, s, -1).Rows)
	checkpoints := count(t, s, `SELECT count(*) FROM audit_checkpoints`)
	flip := func(column string) string { // One bit of one byte.
		at := random.IntN(16)
		return fmt.Sprintf(`UPDATE %%s SET %[1]s = set_byte(%[1]s, %[2]d, get_byte(%[1]s, %[2]d) # %[3]d) WHERE ctid = $1::tid`, column, at, 1<<random.IntN(8))
	}
	for i := range 150 {
		table, rows := "audit_events", total
		changes := []string{`DELETE FROM %s WHERE ctid = $1::tid`, flip("body"), flip("hash"), flip("prev_hash"), flip("mac"),
			`UPDATE %s SET seq = seq + 100000 WHERE ctid = $1::tid`, `UPDATE %s SET writer = gen_random_uuid() WHERE ctid = $1::tid`,
			`UPDATE %s SET body = body || '\x00' WHERE ctid = $1::tid`}
		if i%3 == 0 {
			table, rows = "audit_checkpoints", checkpoints
			changes = []string{`DELETE FROM %s WHERE ctid = $1::tid`, flip("body"), flip("signature"), flip("public_key"),
				`UPDATE %s SET number = number + 100000 WHERE ctid = $1::tid`, `UPDATE %s SET at = at + interval '1 second' WHERE ctid = $1::tid`}
		}
		sql := fmt.Sprintf(changes[random.IntN(len(changes))], table)
		undone := errors.New("undone")
		err := s.tx(t.Context(), func(tx pgx.Tx) error {
			var row string
			if err := tx.QueryRow(t.Context(), `SELECT ctid::text FROM `+table+` ORDER BY ctid OFFSET $1 LIMIT 1`, random.IntN(rows)).Scan(&row); err != nil {
				return err
			}
			if _, err := tx.Exec(t.Context(), `SET LOCAL session_replication_role = replica`); err != nil {
				return err
			}
			if tag, err := tx.Exec(t.Context(), sql, row); err != nil || tag.RowsAffected() != 1 {
				return fmt.Errorf("%s: %v, %w", sql, tag, err)
			}
			v := &verifying{audit.Verifier{Trust: s.audit.keys.Trust(), Keys: s.audit.keys, Cell: s.audit.cell.ID}}
			err := visitAudit(t.Context(), tx, 0, v)
			if err == nil {
				_, err = v.Finish()
			}
			var f *audit.Fault
			if !errors.As(err, &f) {
				t.Errorf("%s: %v", sql, err)
			}
			return undone
		})
		if !errors.Is(err, undone) {
			t.Fatal(err)
		}
	}
	wantVerified(t, s, total)
}

func TestTheTriggersRefuse(t *testing.T) {
	t.Parallel()
	s, _ := freshAudit(t)
	fill(t, s, 1)
	checkpoint(t, s)
	for _, table := range []string{"audit_events", "audit_checkpoints", "audit_checkpoint_heads"} {
		column := map[string]string{"audit_events": "seq = 9", "audit_checkpoints": "number = 9", "audit_checkpoint_heads": "number = 9"}[table]
		for _, sql := range []string{`UPDATE ` + table + ` SET ` + column, `DELETE FROM ` + table, `TRUNCATE ` + table} {
			if _, err := s.pool.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "never changed") {
				t.Errorf("%s: %v", sql, err)
			}
		}
	}
	for _, sql := range []string{`TRUNCATE audit_prunings`, `DELETE FROM audit_prunings`} {
		if _, err := s.pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s is let", sql)
		}
	}
	wantVerified(t, s, 3)
}
