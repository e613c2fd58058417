package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/internal/embeddedpg/pgtest"
	"quicproquo.dev/schema/ids"
)

// aged is a log of n days, the oldest first, each with some events and a checkpoint.
func aged(t *testing.T, s *Store, days int) {
	t.Helper()
	for age := days - 1; age >= 0; age-- {
		at := time.Now().Add(-time.Duration(age) * day)
		must(t, s.WriteAudit(t.Context(), audit.LoginFailed(ids.ID{}, audit.ReasonUnknownName).At(at), audit.AdminRefused(audit.ReasonInvalidToken).At(at)))
		if p, err := s.CheckpointAudit(t.Context(), at); err != nil || p.Made.Number == 0 {
			t.Fatalf("%+v, %v", p, err)
		}
	}
}

func TestPruning(t *testing.T) {
	t.Parallel()
	s, uri := freshAudit(t)
	dead := process(t, uri) // Its chain ends long before.
	must(t, dead.WriteAudit(t.Context(), audit.AdminRefused(audit.ReasonInvalidToken).At(time.Now().Add(-20*day))))
	aged(t, s, 10) // Ten checkpoints; the first has the dead chain too.
	before := wantVerified(t, s, 2+1+20)
	kept := audit.Anchor{Number: 6}
	var body []byte
	must(t, s.pool.QueryRow(t.Context(), `SELECT body FROM audit_checkpoints WHERE number = 6`).Scan(&body))
	kept.Hash = (&audit.Signed{Body: body}).Hash()

	upTo, removed, err := s.PruneAudit(t.Context(), time.Now().Add(-5*day+time.Hour), time.Now())
	must(t, err)
	if upTo != 5 || removed != 2+1+10 {
		t.Fatalf("pruned to %d, %d rows", upTo, removed)
	}
	r := wantVerified(t, s, 10)
	if r.PrunedTo != 5 || r.First != 6 || r.Last != before.Last || r.Chains != 1 {
		t.Errorf("%+v", r)
	}
	if _, err := verifyAudit(t, s, kept, before.Last); err != nil {
		t.Error(err)
	}
	if r, err := verifyAudit(t, s, audit.Anchor{Number: 2}); err != nil || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "before what was looked at") {
		t.Errorf("%+v, %v", r, err)
	}
	for table, want := range map[string]int{"audit_events": 10, "audit_checkpoints": 5, "audit_checkpoint_heads": 6, "audit_prunings": 1} {
		if n := count(t, s, `SELECT count(*) FROM `+table); n != want {
			t.Errorf("%s has %d rows, want %d", table, n, want)
		}
	}
	// It goes on, is pruned again, and says again that there is nothing to do.
	fill(t, s, 2)
	checkpoint(t, s)
	wantVerified(t, s, 14)
	for i, want := range []uint64{3 * 2, 0} {
		if upTo, removed, err = s.PruneAudit(t.Context(), time.Now().Add(-2*day+time.Hour), time.Now()); err != nil || upTo != 8 || removed != want {
			t.Errorf("again %d: to %d, %d rows, %v", i, upTo, removed, err)
		}
	}
	if r := wantVerified(t, s, 8); r.PrunedTo != 8 {
		t.Errorf("%+v", r)
	}
	// Never the last checkpoint, which the next one has to follow.
	if upTo, _, err = s.PruneAudit(t.Context(), time.Now().Add(day), time.Now()); err != nil || upTo != 10 {
		t.Errorf("to %d, %v", upTo, err)
	}
	fill(t, s, 1)
	checkpoint(t, s)
	wantVerified(t, s, 4+2)
}

func TestAPrunedLogStillShowsTampering(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		sql   string
		kinds []audit.FaultKind
	}{
		"a row":                   {`DELETE FROM audit_events WHERE seq = (SELECT min(seq) FROM audit_events)`, []audit.FaultKind{audit.FaultMissing}},
		"the record of it":        {`DELETE FROM audit_prunings`, []audit.FaultKind{audit.FaultMissingCheckpoint}},
		"the record forged":       {`UPDATE audit_prunings SET body = set_byte(body, 30, get_byte(body, 30) # 1)`, []audit.FaultKind{audit.FaultForgedCheckpoint}},
		"the first checkpoint":    {`DELETE FROM audit_checkpoints WHERE number = 6`, []audit.FaultKind{audit.FaultMissingCheckpoint}},
		"the chain's rows, moved": {`UPDATE audit_events SET seq = seq - 2`, []audit.FaultKind{audit.FaultEdited, audit.FaultMissing}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := freshAudit(t)
			aged(t, s, 10)
			if upTo, _, err := s.PruneAudit(t.Context(), time.Now().Add(-5*day+time.Hour), time.Now()); err != nil || upTo != 5 {
				t.Fatal(upTo, err)
			}
			tamper(t, s, x.sql)
			_ = wantFault(t, s, x.kinds...)
		})
	}
}

// A log that does not verify is left as it is: it is evidence.
func TestWhatDoesNotVerifyIsNotPruned(t *testing.T) {
	t.Parallel()
	s, _ := freshAudit(t)
	aged(t, s, 10)
	tamper(t, s, `UPDATE audit_events SET body = set_byte(body, 3, 7) WHERE seq = 4`)
	var f *audit.Fault
	if _, _, err := s.PruneAudit(t.Context(), time.Now().Add(-5*day), time.Now()); !errors.As(err, &f) || f.Seq != 4 {
		t.Errorf("got %v", err)
	}
	if n := count(t, s, `SELECT count(*) FROM audit_events`); n != 21 {
		t.Errorf("%d rows are left", n)
	}
}

// A pruning that was cut off between its record and the removal leaves a log that verifies, and the next completes it.
func TestAPruningThatWasCutOff(t *testing.T) {
	t.Parallel()
	s, uri := freshAudit(t)
	dead := process(t, uri)
	must(t, dead.WriteAudit(t.Context(), audit.AdminRefused(audit.ReasonInvalidToken).At(time.Now().Add(-20*day))))
	aged(t, s, 10)
	must(t, s.recordPruning(t.Context(), 5, time.Now()))
	wantVerified(t, s, 10)
	if e := exportOf(t, s, audit.Filter{}); strings.Count(e, `"type":"event"`) != 10 {
		t.Errorf("%s", e)
	}
	if upTo, removed, err := s.PruneAudit(t.Context(), time.Now().Add(-8*day), time.Now()); err != nil || upTo != 5 || removed != 13 {
		t.Errorf("to %d, %d rows, %v", upTo, removed, err)
	}
	wantVerified(t, s, 10)
}

// roles makes an owner who is no superuser, and a server's role, for a fresh database; it returns the connection strings of both.
func roles(t *testing.T) (ownerURI, serverURI, serverRole string) {
	t.Helper()
	uri := pgtest.New(t)
	admin, err := pgx.Connect(t.Context(), uri)
	must(t, err)
	defer admin.Close(context.WithoutCancel(t.Context()))
	database := admin.Config().Database
	owner, server := database+"_owner", database+"_server"
	for _, sql := range []string{`CREATE ROLE %[2]s LOGIN PASSWORD 'o'`, `CREATE ROLE %[3]s LOGIN PASSWORD 's'`, `GRANT %[3]s TO %[2]s`,
		`ALTER DATABASE %[1]s OWNER TO %[2]s`, `ALTER SCHEMA public OWNER TO %[2]s`} {
		_, err := admin.Exec(t.Context(), fmt.Sprintf(sql, database, owner, server))
		must(t, err)
	}
	// Roles outlive databases; they go after what they own.
	super := pgtest.Server(t).DatabaseURL("postgres")
	t.Cleanup(func() {
		admin, err := pgx.Connect(context.Background(), uri)
		must(t, err)
		for _, sql := range []string{`REASSIGN OWNED BY %s, %s TO CURRENT_USER`, `DROP OWNED BY %s, %s`} {
			_, err = admin.Exec(context.Background(), fmt.Sprintf(sql, owner, server))
			must(t, err)
		}
		must(t, admin.Close(context.Background()))
		admin, err = pgx.Connect(context.Background(), super)
		must(t, err)
		_, err = admin.Exec(context.Background(), fmt.Sprintf(`DROP ROLE %s, %s`, owner, server))
		must(t, err)
		must(t, admin.Close(context.Background()))
	})
	as := func(user, password string) string {
		u, err := url.Parse(uri)
		must(t, err)
		u.User = url.UserPassword(user, password)
		return u.String()
	}
	return as(owner, "o"), as(server, "s"), server
}

// The whole of what a server does, under a role that may do no more: it can add to the audit log and read it, and
// neither change it nor take its protection away. The owner prunes.
func TestAServerWithARoleOfItsOwn(t *testing.T) {
	t.Parallel()
	ownerURI, serverURI, role := roles(t)
	owner := open(t, ownerURI, 1)
	must(t, owner.Migrate(t.Context(), quiet))
	for range 2 { // After each migration.
		statements, err := owner.GrantServer(t.Context(), role, false)
		must(t, err)
		if len(statements) < 10 {
			t.Errorf("%q", statements)
		}
	}
	s := process(t, serverURI)
	must(t, s.CheckCompatible(t.Context()))
	serveAll(t, s)
	must(t, s.EndAuditChains(t.Context()))
	checkpoint(t, s)
	must(t, s.SweepAuditKeys(t.Context(), time.Now()))
	wantVerified(t, s, -1)

	for _, sql := range []string{
		`UPDATE audit_events SET body = body`, `DELETE FROM audit_events`, `TRUNCATE audit_events`, `ALTER TABLE audit_events DISABLE TRIGGER ALL`,
		`DROP TRIGGER audit_refuse ON audit_events`, `DROP TABLE audit_events`, `ALTER TABLE audit_events RENAME TO x`, `SET session_replication_role = replica`,
		`UPDATE audit_checkpoints SET body = body`, `DELETE FROM audit_checkpoints`, `DELETE FROM audit_checkpoint_heads`, `UPDATE audit_checkpoint_heads SET seq = 1`,
		`INSERT INTO audit_prunings SELECT number, at, body, public_key, signature FROM audit_checkpoints LIMIT 1`, `UPDATE audit_subjects SET ref_index = ''`,
		`CREATE OR REPLACE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`, `UPDATE cell SET min_compatible = 1`,
		`SET ROLE ` + pgtestUser(t, owner), `SET ROLE ` + strings.TrimSuffix(role, "server") + "owner",
	} {
		if _, err := s.pool.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	aged(t, s, 10)
	if _, _, err := s.PruneAudit(t.Context(), time.Now().Add(-5*day), time.Now()); !errors.Is(err, ErrNotOwner) {
		t.Errorf("the server prunes: %v", err)
	}
	must(t, owner.EnableAudit(t.Context(), auditKeys(t, 1)))
	if _, removed, err := owner.PruneAudit(t.Context(), time.Now().Add(-5*day), time.Now()); err != nil || removed == 0 {
		t.Errorf("the owner: %d, %v", removed, err)
	}
	wantVerified(t, s, -1)
}

// serveAll uses the store as a server does.
func serveAll(t *testing.T, s *Store) {
	t.Helper()
	must(t, s.EnsurePartitions(t.Context(), time.Now(), 2*day, []time.Duration{time.Hour, week}, fortnight))
	channel, alice, bob := direct(t, s)
	must(t, s.WriteAudit(t.Context(), audit.DirectOpened(alice.AccountID, alice.ID, bob.AccountID, channel)))
	must(t, s.AppendBatch(t.Context(), []*Append{message(channel, alice, "x")}))
	must(t, s.Acknowledge(t.Context(), []Ack{{bob.ID, channel, 1}}))
	must(t, s.AddKeyPackages(t.Context(), alice.ID, []KeyPackage{{Ref: []byte("r"), InitKey: []byte("k"), ExpiresAt: time.Now().Add(time.Hour), Package: []byte("p")}}, 10, time.Now(),
		audit.PackagesUploaded(alice.AccountID, alice.ID, 1, false)))
	_, err := s.ClaimKeyPackages(t.Context(), &Claim{Claimer: bob.ID, Request: ids.New(), Account: alice.AccountID, At: time.Now()}, func([]KeyPackage) audit.Event {
		return audit.PackagesClaimed(bob.AccountID, bob.ID, alice.AccountID, 1, 0)
	})
	must(t, err)
	must(t, s.CreateSession(t.Context(), Session{ID: ids.New(), DeviceID: alice.ID, RefreshHash: []byte("h"), CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)},
		audit.SessionStarted(alice.AccountID, alice.ID, ids.New())))
	must(t, s.EraseAuditSubject(t.Context(), bob.AccountID))
	must(t, s.SweepKeyPackages(t.Context(), time.Now(), time.Now(), 1))
	must(t, s.SweepSessions(t.Context(), time.Now()))
	_, err = s.DropExpiredPartitions(t.Context(), time.Now().Add(3*day), fortnight)
	must(t, err)
}

func TestRolesThatNoGrantBinds(t *testing.T) {
	t.Parallel()
	ownerURI, _, role := roles(t)
	owner := open(t, ownerURI, 1)
	must(t, owner.Migrate(t.Context(), quiet))
	for name, want := range map[string]string{"postgres": "superuser", role[:len(role)-len("server")] + "owner": "owns the audit log", "nobody_at_all": "not found"} {
		if name == "postgres" {
			name = pgtestUser(t, owner)
		}
		if _, err := owner.GrantServer(t.Context(), name, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	statements, err := owner.GrantServer(t.Context(), role, true)
	must(t, err)
	if n := count(t, owner, `SELECT count(*) FROM information_schema.role_table_grants WHERE grantee = $1`, role); n != 0 {
		t.Errorf("dry, but %d grants", n)
	}
	text := strings.Join(statements, ";\n")
	for _, want := range []string{`GRANT SELECT, INSERT ON "audit_events" TO`, `GRANT SELECT ON "audit_prunings" TO`, `ALTER TABLE "messages" OWNER TO`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing in\n%s", want, text)
		}
	}
	if bytes.Contains([]byte(text), []byte(`UPDATE, DELETE ON "audit_`)) {
		t.Errorf("%s", text)
	}
}

// pgtestUser is the superuser of the server that tests run on.
func pgtestUser(t *testing.T, s *Store) (name string) {
	t.Helper()
	must(t, s.pool.QueryRow(t.Context(), `SELECT rolname FROM pg_roles WHERE rolsuper LIMIT 1`).Scan(&name))
	return name
}
