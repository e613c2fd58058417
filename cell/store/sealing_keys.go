package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/schema/ids"
)

const (
	// processSilence is how long a process is taken to run after it was last seen.
	processSilence = 2 * time.Minute
	// keyQuiet is how long a key must have sealed nothing until its rows are taken to be all there will be.
	keyQuiet = 10 * time.Minute
)

// ErrKeyMissing says that rows are sealed under a key that this process does not have.
var ErrKeyMissing = errors.New("rows are sealed under a key that the keys file does not have")

// Sealing takes part in the cell's agreement on the key that seals: the first of the file as soon as every process that
// runs has it, and until then the one that all have. So a file with a new first key can be rolled out in any order,
// with old and new side by side. One goroutine uses it.
type Sealing struct {
	s       *Store
	process ids.ID
}

// JoinSealing enters this process into the agreement. ErrKeyMissing, with what to do, when rows may be under a key that
// it does not have; that is looked up, not counted. Refresh must follow at intervals well below two minutes, and Leave at the end.
func (s *Store) JoinSealing(ctx context.Context) (*Sealing, error) {
	g := &Sealing{s, ids.New()}
	err := g.announce(ctx)
	readOnly := errors.Is(err, ErrUnavailable) // Then nothing can be sealed either.
	if err != nil && !readOnly {
		return nil, err
	}
	// What others use is read after this process is seen by them: of two that start at once, one sees the other.
	if err := g.checkKeys(ctx); err != nil {
		g.Leave(ctx)
		return nil, err
	}
	if !readOnly {
		err = g.choose(ctx)
	} else {
		err = nil
	}
	return g, err
}

// Refresh says that this process still runs, and chooses the key that seals anew.
func (g *Sealing) Refresh(ctx context.Context) error {
	if err := g.announce(ctx); err != nil {
		return err
	}
	return g.choose(ctx)
}

// Leave ends taking part.
func (g *Sealing) Leave(ctx context.Context) {
	ctx, cancel := cleanup(ctx)
	defer cancel()
	_, _ = g.s.pool.Exec(ctx, `DELETE FROM sealing_processes WHERE process_id = $1`, g.process) // It will be forgotten in any case.
}

func (g *Sealing) announce(ctx context.Context) error {
	_, err := g.s.pool.Exec(ctx, `WITH silent AS (DELETE FROM sealing_processes WHERE seen_at < clock_timestamp() - $3::interval AND process_id <> $1)
		INSERT INTO sealing_processes (process_id, key_ids, seen_at) VALUES ($1, $2, clock_timestamp())
		ON CONFLICT (process_id) DO UPDATE SET key_ids = excluded.key_ids, seen_at = excluded.seen_at`, g.process, g.s.sealer.keyIDs(), processSilence)
	return classify(err)
}

// checkKeys compares the keys in use with those in the file.
func (g *Sealing) checkKeys(ctx context.Context) error {
	used, err := g.s.sealingKeys(ctx)
	if err != nil {
		return err
	}
	var missing []string
	for _, k := range used {
		if !slices.Contains(g.s.sealer.keyIDs(), k) {
			missing = append(missing, fmt.Sprint(k))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s; put it back behind the first key, and drop it when `cell keys status` finds no row under it any more", ErrKeyMissing, strings.Join(missing, ", "))
	}
	return nil
}

func (s *Store) sealingKeys(ctx context.Context) ([]int64, error) {
	rows, err := s.pool.Query(ctx, `SELECT key_id FROM sealing_keys ORDER BY key_id`)
	if err != nil {
		return nil, classify(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	return list, classify(err)
}

// choose takes the first key in the file's order that every process has. A key is noted as used before it is, and before
// the others are looked at.
func (g *Sealing) choose(ctx context.Context) error {
	first := g.s.sealer.keyIDs()[0]
	if err := g.noteUse(ctx, first); err != nil {
		return err
	}
	rows, err := g.s.pool.Query(ctx, `SELECT key_ids FROM sealing_processes WHERE seen_at >= clock_timestamp() - $1::interval`, processSilence)
	if err != nil {
		return classify(err)
	}
	others, err := pgx.CollectRows(rows, pgx.RowTo[[]int64])
	if err != nil {
		return classify(err)
	}
	for _, k := range g.s.sealer.keyIDs() {
		if !slices.ContainsFunc(others, func(has []int64) bool { return !slices.Contains(has, k) }) {
			if k != first {
				err = g.noteUse(ctx, k)
			}
			g.s.sealer.use(uint32(k)) //nolint:gosec // It is one of ours.
			return err
		}
	}
	return nil // Nothing in common: what seals now goes on.
}

func (g *Sealing) noteUse(ctx context.Context, key int64) error {
	_, err := g.s.pool.Exec(ctx, `INSERT INTO sealing_keys (key_id, sealed_at) VALUES ($1, clock_timestamp())
		ON CONFLICT (key_id) DO UPDATE SET sealed_at = excluded.sealed_at`, key)
	return classify(err)
}
