package server

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/internal/cellkeys"
)

// openAudit has the store keep the audit log. Until the Recorder runs, nothing may wait for it.
func (s *Server) openAudit(ctx context.Context, k *cellkeys.Keys) error {
	keys, err := AuditKeys(k)
	if err != nil {
		return err
	}
	if err := s.store.EnableAudit(ctx, keys); err != nil {
		return fmt.Errorf("opening the audit log: %w", err)
	}
	s.audit = audit.NewRecorder(s.store, audit.Options{Log: s.log, Fault: s.metrics.AuditFaults.Inc})
	return nil
}

// closeAudit stores what waits, once nothing comes any more. Without a database that is lost, and said.
func (s *Server) closeAudit(ctx context.Context) {
	if s.audit == nil {
		return
	}
	if err := s.audit.Close(ctx); err != nil {
		s.log.WarnContext(ctx, "the audit log has no end of this process: what had not been stored is lost", "error", err)
	}
}

// recordKeys records which keys are in use, where they are others than those that were recorded last, by whatever process.
func (s *Server) recordKeys(ctx context.Context, present map[audit.KeySet]uint32) error {
	recorded := map[audit.KeySet]uint32{}
	err := s.store.LatestAudit(ctx, audit.KindServerKeyRotated, func(r *audit.Record) bool {
		set, id := audit.KeySet(r.Detail(audit.FieldKeySet)), uint32(r.Detail(audit.FieldKeyID)) //nolint:gosec // as ServerKeyRotated made it.
		if _, ok := recorded[set]; !ok {
			recorded[set] = id
		}
		return len(recorded) < audit.KeySets
	})
	if err != nil {
		return err
	}
	var events []audit.Event
	for set := audit.KeySet(1); set <= audit.KeySets; set++ {
		id, has := present[set]
		if was, ok := recorded[set]; has && !(ok && was == id) {
			events = append(events, audit.ServerKeyRotated(set, id))
		}
	}
	if len(events) == 0 {
		return nil
	}
	return s.store.WriteAudit(ctx, events...)
}

// keysOf are the first keys of the keys file's sets. 0 is the audit key that follows from the file.
func keysOf(k *cellkeys.Keys) map[audit.KeySet]uint32 {
	m := map[audit.KeySet]uint32{audit.KeySetTokens: k.Tokens[0].ID, audit.KeySetSealing: k.Sealing[0].ID, audit.KeySetOPAQUE: k.OPAQUE.KeyID(), audit.KeySetAudit: 0}
	if len(k.Audit) > 0 {
		m[audit.KeySetAudit] = k.Audit[0].ID
	}
	return m
}

// recordCertificate records the key of the certificate in use. It waits for nobody: when it fails, the next look does it.
func (s *Server) recordCertificate(ctx context.Context) {
	id := s.cert.KeyID()
	if s.certRecorded == id {
		return
	}
	if err := s.recordKeys(ctx, map[audit.KeySet]uint32{audit.KeySetTLS: id}); err != nil {
		s.log.WarnContext(ctx, "the certificate's new key is not in the audit log yet; it is tried again", "error", err)
		return
	}
	s.certRecorded = id
}

// recordPolicy records that p comes into use, unless it is what was recorded last, by whatever process.
func (s *Server) recordPolicy(ctx context.Context, p *policy.Policy) error {
	var hash [8]byte
	if _, err := hex.Decode(hash[:], []byte(p.Hash())[:2*len(hash)]); err != nil {
		return err
	}
	same := false
	err := s.store.LatestAudit(ctx, audit.KindPolicyReplaced, func(r *audit.Record) bool {
		same = r.Detail(audit.FieldPolicyHash) == binary.BigEndian.Uint64(hash[:])
		return false
	})
	if err != nil || same {
		return err
	}
	return s.store.WriteAudit(ctx, audit.PolicyReplaced(hash))
}

// Audit is a cell's audit log, opened by a command beside the server.
type Audit struct {
	Store *store.Store
	Keys  *audit.Keys
	Cell  store.Cell

	policy string // Its file.
}

// Retention is how long the policy file says that the audit log is kept.
func (a *Audit) Retention() (time.Duration, error) {
	p, err := readPolicy(a.policy)
	if err != nil {
		return 0, err
	}
	return time.Duration(p.Retention.Audit), nil
}

// OpenAudit opens the configured database with its audit log. The caller closes the Store.
func OpenAudit(ctx context.Context, c *Config) (*Audit, error) {
	k, err := cellkeys.Load(c.KeysFile)
	if err != nil {
		return nil, err
	}
	keys, err := AuditKeys(k)
	if err != nil {
		return nil, err
	}
	st, err := openStore(ctx, c, k)
	if err != nil {
		return nil, err
	}
	a := &Audit{Store: st, Keys: keys, policy: c.PolicyFile}
	if err = st.CheckCompatible(ctx); err == nil {
		err = st.EnableAudit(ctx, keys)
	}
	if err == nil {
		a.Cell, err = st.Cell(ctx)
	}
	if err != nil {
		st.Close()
		return nil, err
	}
	return a, nil
}

// AuditKeys are the keys of a cell's audit log.
func AuditKeys(k *cellkeys.Keys) (*audit.Keys, error) {
	seeds, err := k.AuditSeeds()
	if err != nil {
		return nil, err
	}
	return audit.NewKeys(seeds...)
}

// GrantServer gives a database role what serving needs, and no more; see store.Store.GrantServer.
func GrantServer(ctx context.Context, c *Config, role string, dry bool) ([]string, error) {
	st, err := openBeside(ctx, c)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	return st.GrantServer(ctx, role, dry)
}
