package celltest

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/server"
)

// AuditEvent is an event as the audit log's export shows it. Who and what is named by pseudonyms.
type AuditEvent struct {
	At                                    time.Time
	Kind, Outcome, Reason, Actor          string
	By, Subject, Device, Session, Channel string
	Address                               string
	Writer                                string
	Details                               map[string]uint64
}

// What says what happened, such as "auth.login failure wrong_password".
func (e *AuditEvent) What() string {
	return strings.TrimSuffix(e.Kind+" "+e.Outcome+" "+e.Reason, " ")
}

// AuditLog is a cell's audit log, verified, exported to its end and signed.
type AuditLog struct {
	Export string
	Report audit.Report
	Events []AuditEvent
}

// Count says how many events of a What there are; where one stands for many, all of them.
func (l *AuditLog) Count(what string) (n uint64) {
	for i := range l.Events {
		if l.Events[i].What() == what {
			n += max(l.Events[i].Details["count"], 1)
		}
	}
	return n
}

// Find returns the events of a kind.
func (l *AuditLog) Find(kind audit.Kind) (found []AuditEvent) {
	for _, e := range l.Events {
		if e.Kind == kind.String() {
			found = append(found, e)
		}
	}
	return found
}

// Audit reads the audit log; it must verify. Of a cell that runs, what is noted or tallied may not be in it yet.
func (c *Cell) Audit(t testing.TB) *AuditLog {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	a, err := server.OpenAudit(ctx, c.Config(t))
	must(t, err)
	defer a.Store.Close()
	progress, err := a.Store.CheckpointAudit(ctx, time.Now())
	must(t, err)
	if progress != nil && len(progress.Faults) > 0 {
		t.Fatalf("the audit log does not verify: %v", progress.Faults)
	}
	l := &AuditLog{}
	v := &auditVerifier{audit.Verifier{Trust: a.Keys.Trust(), Keys: a.Keys, Cell: a.Cell.ID}}
	must(t, a.Store.VisitAudit(ctx, 0, v))
	l.Report, err = v.Finish()
	must(t, err)
	var out bytes.Buffer
	x, err := audit.NewExporter(&out, a.Cell.ID, 0, false)
	must(t, err)
	must(t, a.Store.VisitAudit(ctx, 0, x))
	l.Export = out.String()
	for line := range strings.Lines(l.Export) {
		var e struct {
			Type string
			AuditEvent
		}
		must(t, json.Unmarshal([]byte(line), &e))
		if e.Type == "event" {
			l.Events = append(l.Events, e.AuditEvent)
		}
	}
	return l
}

type auditVerifier struct{ audit.Verifier }

// AwaitAudit reads the audit log until it has so many of each What, and returns it.
func (c *Cell) AwaitAudit(t testing.TB, want map[string]uint64) *AuditLog {
	t.Helper()
	for end := time.Now().Add(Patience); ; time.Sleep(100 * time.Millisecond) {
		l := c.Audit(t)
		missing := ""
		for what, n := range want {
			if has := l.Count(what); has < n {
				missing = what
			}
		}
		if missing == "" {
			return l
		}
		if time.Now().After(end) {
			t.Fatalf("never recorded: %s, among\n%s", missing, l.Export)
		}
	}
}
