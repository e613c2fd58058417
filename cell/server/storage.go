package server

import (
	"context"
	"fmt"
	"time"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/internal/cellkeys"
)

const (
	durabilityEvery = time.Minute
	sealingEvery    = 30 * time.Second
	resealEvery     = 10 * time.Minute
	resealRate      = 200 // Values a second.
)

// checkDurability asks the database what it does for a commit; log, metric and the ops port tell.
func (s *Server) checkDurability(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, databaseEvery)
	defer cancel()
	d, err := s.store.Durability(ctx)
	if err != nil {
		return err
	}
	before := s.durability.Swap(&d)
	s.metrics.SetDurability(d.Reduced)
	switch {
	case d.Reduced && (before == nil || before.String() != d.String()):
		s.log.ErrorContext(ctx, "durability is reduced: what was acknowledged may be lost", "problems", d.String())
	case before != nil && before.Reduced && !d.Reduced:
		s.log.InfoContext(ctx, "durability is restored: what is acknowledged survives a crash")
	}
	return nil
}

// watchDurability looks once a minute. A database that is away is watchDatabase's to report.
func (s *Server) watchDurability(ctx context.Context) {
	every(ctx, durabilityEvery, func() {
		if err := s.checkDurability(ctx); err != nil && ctx.Err() == nil {
			s.log.DebugContext(ctx, "durability could not be checked", "error", err)
		}
	})
}

// durabilityNow is the last answer, for the ops port.
func (s *Server) durabilityNow() any {
	if d := s.durability.Load(); d != nil {
		return d
	}
	return store.Durability{}
}

// watchSealing keeps this process in the agreement on the key that seals, and seals anew what is under others.
func (s *Server) watchSealing(ctx context.Context) {
	defer s.sealing.Leave(ctx)
	last := time.Time{}
	every(ctx, sealingEvery, func() {
		if err := s.sealing.Refresh(ctx); err != nil {
			if ctx.Err() == nil {
				s.log.WarnContext(ctx, "agreeing on the sealing key failed; it is tried again", "error", err)
			}
			return
		}
		if time.Since(last) >= resealEvery {
			last = time.Now()
			s.reseal(ctx)
		}
	})
}

// reseal takes as long as its rate makes it, far less than it takes others to miss this process in the agreement: it
// refreshes that itself.
func (s *Server) reseal(ctx context.Context) {
	for ctx.Err() == nil {
		bound, cancel := context.WithTimeout(ctx, sealingEvery)
		done, err := s.store.Reseal(bound, resealRate)
		cut := bound.Err() != nil && ctx.Err() == nil
		cancel()
		s.metrics.Resealed.Add(float64(done.Rows))
		if len(done.Retired) > 0 {
			s.log.InfoContext(ctx, "nothing is sealed under these keys any more; they may be dropped from the keys file", "keys", done.Retired)
		}
		if err != nil && !cut && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "sealing columns anew failed; it is tried again", "error", err)
		}
		if !cut || done.Rows == 0 {
			return
		}
		if err := s.sealing.Refresh(ctx); err != nil {
			return
		}
	}
}

// OpenStore opens the configured database for a command beside the server. The caller closes it.
func OpenStore(ctx context.Context, c *Config) (*store.Store, error) {
	st, err := openBeside(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := st.CheckCompatible(ctx); err != nil {
		st.Close()
		return nil, err
	}
	return st, nil
}

// SealingKeyStatus is what `cell keys status` prints of a key.
type SealingKeyStatus struct {
	ID     uint32 `json:"id"`
	Values int64  `json:"values"` // Sealed under it.
	InFile bool   `json:"inFile"`
	First  bool   `json:"first"` // Of the file: the one that is to seal.
}

// SealingKeys counts what is sealed under which key, those of the file first and in its order. With key 0 stand values that are
// damaged.
func SealingKeys(ctx context.Context, c *Config) ([]SealingKeyStatus, error) {
	k, err := cellkeys.Load(c.KeysFile)
	if err != nil {
		return nil, err
	}
	st, err := OpenStore(ctx, c)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	counts, err := st.SealedRows(ctx)
	if err != nil {
		return nil, fmt.Errorf("counting sealed values: %w", err)
	}
	var list []SealingKeyStatus
	for i, key := range k.Sealing {
		list = append(list, SealingKeyStatus{ID: key.ID, Values: counts[key.ID], InFile: true, First: i == 0})
		delete(counts, key.ID)
	}
	for id, n := range counts {
		list = append(list, SealingKeyStatus{ID: id, Values: n})
	}
	return list, nil
}
