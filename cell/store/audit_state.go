package store

import (
	"context"
	"encoding/binary"
	"fmt"

	"quicproquo.dev/cell/audit"
)

// LatestAudit shows what is recorded of a kind that tells of the cell's own state, a rotated key or a policy, the latest
// first, until show returns false. It verifies nothing.
func (s *Store) LatestAudit(ctx context.Context, kind audit.Kind, show func(*audit.Record) (more bool)) error {
	if kind != audit.KindServerKeyRotated && kind != audit.KindPolicyReplaced { // The index has no others.
		return fmt.Errorf("events of the kind %s are not looked up", kind)
	}
	rows, err := s.pool.Query(ctx, `SELECT body FROM audit_events
		WHERE substring(body FROM 2 FOR 2) = $1 AND substring(body FROM 2 FOR 2) IN ('\x019a'::bytea, '\x025d'::bytea)
		ORDER BY substring(body FROM 8 FOR 8) DESC`, binary.BigEndian.AppendUint16(nil, uint16(kind)))
	if err != nil {
		return classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		var body []byte
		if err := rows.Scan(&body); err != nil {
			return classify(err)
		}
		r, err := audit.DecodeRecord(body)
		if err == nil && !show(r) {
			return nil
		}
	}
	return classify(rows.Err())
}
