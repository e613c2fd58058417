// Package revocation knows which sessions, devices and accounts were revoked lately, so that every server of a cell
// refuses their access tokens without asking the database, and ends their connections.
//
// Whoever revokes adds a row to the database in the same transaction; each server looks for new rows twice a second. What is
// revoked is remembered for as long as an access token can live. A server that cannot reach the database takes what it
// knew, and reads everything again once it can: meanwhile nobody is served anything from the database either.
package revocation

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
)

const (
	pollEvery    = 500 * time.Millisecond
	pollPatience = 5 * time.Second
	forgetEvery  = time.Minute

	// Kept is how long a revocation is remembered, and its row kept: as long as any policy lets an access token live,
	// and an hour for clocks that differ.
	Kept = policy.MaxAccessTokenTTL + time.Hour
)

// Store is what this package asks of *store.Store.
type Store interface {
	Revocations(ctx context.Context, since store.Horizon) ([]store.Revocation, store.Horizon, error)
}

// Subject is what a token or a connection speaks for.
type Subject struct{ Account, Device, Session ids.ID }

// key tells apart what clients may give the same id: device ids are theirs to choose.
type key struct {
	kind store.RevocationKind
	id   ids.ID
}

func (s Subject) keys() [3]key {
	return [3]key{{store.RevokedDevice, s.Device}, {store.RevokedAccount, s.Account}, {store.RevokedSession, s.Session}}
}

// Watcher follows the revocations of a cell. It is safe for concurrent use.
type Watcher struct {
	store Store
	log   *slog.Logger
	now   func() time.Time
	poke  chan struct{} // One token: somebody has just revoked something.

	// Of the goroutine that polls.
	horizon store.Horizon
	seen    map[uint64]struct{} // Rows of the last answer.
	failed  bool
	forget  time.Time

	mu      sync.RWMutex
	revoked map[key]time.Time // Until when it is remembered.
	watched map[*watch]struct{}
}

// watch is a connection.
type watch struct {
	Subject
	revoke func(store.RevocationKind)
}

// New returns a Watcher; Load comes first, and Run keeps it going.
func New(s Store, log *slog.Logger, now func() time.Time) *Watcher {
	return &Watcher{store: s, log: log, now: now, poke: make(chan struct{}, 1), revoked: map[key]time.Time{}, watched: map[*watch]struct{}{}}
}

// Load reads what was revoked lately. Until it has, no token may be taken.
func (w *Watcher) Load(ctx context.Context) error { return w.poll(ctx) }

// Run follows until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-w.poke:
		}
		w.pollLogged(ctx)
	}
}

// Poke has Run look at once: this server has just revoked something.
func (w *Watcher) Poke() {
	select {
	case w.poke <- struct{}{}:
	default:
	}
}

func (w *Watcher) pollLogged(ctx context.Context) {
	err := w.poll(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil && !w.failed:
		w.log.WarnContext(ctx, "looking for revocations failed; those known so far are in force, and the others once the database is back", "error", err)
	case err == nil && w.failed:
		w.log.InfoContext(ctx, "revocations are known again")
	}
	w.failed = err != nil
	if err != nil {
		w.horizon = 0 // It may come back as another, whose transactions are numbered otherwise.
	}
}

// poll reads what is new. A database whose transactions are numbered below what was seen is another than before: then
// everything is read.
func (w *Watcher) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pollPatience)
	defer cancel()
	list, next, err := w.store.Revocations(ctx, w.horizon)
	if err == nil && next < w.horizon {
		w.seen = nil
		list, next, err = w.store.Revocations(ctx, 0)
	}
	if err != nil {
		return err
	}
	w.horizon = next
	w.apply(list)
	return nil
}

// apply takes in rows, of which those of the last answer are known.
func (w *Watcher) apply(list []store.Revocation) {
	now := w.now()
	before := w.seen
	w.seen = make(map[uint64]struct{}, len(list))
	var fresh []store.Revocation
	for _, r := range list {
		w.seen[r.ID] = struct{}{}
		if _, known := before[r.ID]; !known && now.Before(r.At.Add(Kept)) {
			fresh = append(fresh, r)
		}
	}
	if len(fresh) > 0 {
		w.end(w.remember(fresh))
	}
	if now.After(w.forget) {
		w.forget = now.Add(forgetEvery)
		w.forgetOld(now)
	}
}

// ended is a connection to end, and why.
type ended struct {
	*watch
	kind store.RevocationKind
}

// remember notes rows and returns the connections that they end.
func (w *Watcher) remember(fresh []store.Revocation) []ended {
	w.mu.Lock()
	defer w.mu.Unlock()
	touched := make(map[key]struct{}, len(fresh))
	for _, r := range fresh {
		if r.Kind == store.RestoredAccount {
			delete(w.revoked, key{store.RevokedAccount, r.Subject})
			continue
		}
		k := key{r.Kind, r.Subject}
		w.revoked[k] = r.At.Add(Kept)
		touched[k] = struct{}{}
	}
	var list []ended
	for c := range w.watched {
		for _, k := range c.keys() {
			_, hit := touched[k]
			if _, still := w.revoked[k]; hit && still {
				list = append(list, ended{c, k.kind})
				break
			}
		}
	}
	return list
}

func (w *Watcher) end(list []ended) {
	for _, e := range list {
		go e.revoke(e.kind)
	}
}

func (w *Watcher) forgetOld(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, until := range w.revoked {
		if !now.Before(until) {
			delete(w.revoked, k)
		}
	}
}

// Revoked reports what of a subject was revoked; 0: nothing.
func (w *Watcher) Revoked(s Subject) store.RevocationKind {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.find(s)
}

// find needs w.mu.
func (w *Watcher) find(s Subject) store.RevocationKind {
	for _, k := range s.keys() {
		if _, revoked := w.revoked[k]; revoked {
			return k.kind
		}
	}
	return 0
}

// Watch has revoke called, in a goroutine of its own, when something of the subject is revoked, until stop is called. When
// it is revoked already, revoke is never called, and kind says what.
func (w *Watcher) Watch(s Subject, revoke func(store.RevocationKind)) (stop func(), kind store.RevocationKind) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if kind := w.find(s); kind != 0 {
		return func() {}, kind
	}
	c := &watch{s, revoke}
	w.watched[c] = struct{}{}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.watched, c)
	}, 0
}
