package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

type exportedEvent struct {
	Type      string            `json:"type"` // auditEvent
	At        time.Time         `json:"at"`
	Kind      string            `json:"kind"`
	Outcome   string            `json:"outcome"`
	Reason    string            `json:"reason,omitempty"`
	By        string            `json:"by"` // account: its own people; else another account, an admin, the cell, …
	DeviceID  *ids.ID           `json:"deviceId,omitempty"`
	Pseudonym map[string]string `json:"pseudonyms,omitempty"` // Of what else it names.
	Address   string            `json:"addressHash,omitempty"`
	Details   map[string]uint64 `json:"details,omitempty"`
}

// auditLines looks through a part of the audit log for what is about the account, or by it.
func (x *exporting) auditLines(ctx context.Context, key []byte) ([]ExportLine, error) {
	subject, err := x.s.subjectKey(ctx, x.s.pool, x.account)
	if errors.Is(err, ErrNotFound) {
		return nil, nil // No event names it.
	}
	if err != nil {
		return nil, err
	}
	after, seq := readSeqKey(key)
	rows, err := x.s.pool.Query(ctx, `SELECT writer, seq, body FROM audit_events WHERE (writer, seq) > ($1, $2) ORDER BY writer, seq LIMIT $3`, after, seq, exportEvents)
	if err != nil {
		return nil, err
	}
	var lines []ExportLine
	var writer ids.ID
	var at uint64
	var body []byte
	seen := 0
	_, err = pgx.ForEachRow(rows, []any{&writer, &at, &body}, func() error {
		seen++
		if seen == exportEvents {
			x.goOn = seqKey(writer, at)
		}
		// One of a newer release, or that is damaged, is passed over: that is for the log's own verification.
		if r, err := audit.DecodeRecord(body); err == nil && isOf(r, subject) {
			lines = append(lines, ExportLine{x.event(r, subject), x.place(seqKey(writer, at))})
		}
		return nil
	})
	return lines, err
}

// isOf reports whether a record is about the account, or by it.
func isOf(r *audit.Record, subject *audit.SubjectKey) bool {
	own := subject.Account()
	return r.Subject == own || r.By == own
}

func (x *exporting) event(r *audit.Record, subject *audit.SubjectKey) exportedEvent {
	e := exportedEvent{Type: "auditEvent", At: r.At, Kind: r.Kind.String(), Outcome: r.Outcome.String(), By: r.Actor.String()}
	if r.Reason != audit.ReasonNone {
		e.Reason = r.Reason.String()
	}
	own := subject.Account()
	if r.Actor == audit.ActorAccount && r.By != own {
		e.By = "another account"
	}
	for _, d := range x.devices {
		if r.Device == subject.Device(d) {
			e.DeviceID = &d
		}
	}
	if r.By == own || r.Subject == own && r.Actor != audit.ActorAccount { // Its own pseudonyms, not another account's.
		for name, ref := range map[string]audit.Ref{"session": r.Session, "channel": r.Channel} {
			if !ref.IsZero() {
				if e.Pseudonym == nil {
					e.Pseudonym = map[string]string{}
				}
				e.Pseudonym[name] = ref.String()
			}
		}
		if r.Address != (audit.AddressRef{}) {
			e.Address = fmt.Sprintf("%x", r.Address[:])
		}
	}
	for _, d := range r.Details {
		if e.Details == nil {
			e.Details = map[string]uint64{}
		}
		e.Details[d.Field.String()] = d.Value
	}
	return e
}
