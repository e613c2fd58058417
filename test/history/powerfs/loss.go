//go:build linux

package powerfs

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

// Mode says how much a PowerLoss throws away.
type Mode int

const (
	// Any leaves that to chance, for each file anew.
	Any Mode = iota
	// All throws everything away that was not synced.
	All
)

// lose puts the backing directory into the state of a machine that lost its power now. Nothing may be using it.
func (s *store) lose(m Mode, r *rand.Rand) (Loss, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	var l Loss
	var errs []error
	for _, ino := range slices.SortedFunc(maps.Keys(s.files), cmp.Compare[uint64]) {
		t := s.files[ino]
		l.Files++
		if err := t.lose(m, r, &l); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", t.f.Name(), err))
		}
		errs = append(errs, t.f.Close())
	}
	clear(s.files)
	errs = append(errs, s.undo(m, r, &l), s.commit())
	return l, errors.Join(errs...)
}

// undo takes some of the last changes of directories back, the last first.
func (s *store) undo(m Mode, r *rand.Rand, l *Loss) error {
	keep := 0
	if n := len(s.journal); m == Any && n > 0 {
		keep = [...]int{0, n, r.IntN(n + 1)}[r.IntN(3)]
	}
	l.Changes += len(s.journal)
	l.Undone += len(s.journal) - keep
	var errs []error
	for _, c := range slices.Backward(s.journal[keep:]) {
		errs = append(errs, c.undo())
	}
	return errors.Join(errs...)
}

// fates of a file's unsynced pages.
const (
	losesAll = iota
	losesNone
	losesPages
	losesSectors
	fates
)

func (t *file) lose(m Mode, r *rand.Rand, l *Loss) error {
	fate := losesAll
	if m == Any {
		fate = r.IntN(fates)
		if t.cut { // What a truncation gave up is not mixed with what was written since.
			fate = r.IntN(2)
		}
	}
	l.Pages += len(t.pages)
	if fate == losesNone {
		return nil
	}
	now, err := t.size()
	if err != nil {
		return err
	}
	size := t.synced
	if fate != losesAll && now > t.synced {
		size += r.Int64N(now - t.synced + 1)
	}
	for _, n := range slices.Sorted(maps.Keys(t.pages)) {
		if err := t.losePage(n, fate, r, l); err != nil {
			return err
		}
	}
	return t.f.Truncate(size)
}

// losePage puts back a page, or some of its sectors, or nothing.
func (t *file) losePage(n int64, fate int, r *rand.Rand, l *Loss) error {
	old := make([]byte, pageSize) // What was not there is zeros, where the file is longer now.
	copy(old, t.pages[n])
	switch {
	case fate == losesAll, fate == losesPages && r.IntN(2) == 0:
		l.Lost++
		_, err := t.f.WriteAt(old, n*pageSize)
		return err
	case fate == losesPages:
		return nil
	}
	torn := 0
	for at := 0; at < pageSize; at += sectorSize {
		if r.IntN(2) == 0 {
			continue
		}
		torn++
		if _, err := t.f.WriteAt(old[at:at+sectorSize], n*pageSize+int64(at)); err != nil {
			return err
		}
	}
	if torn > 0 {
		l.Lost++
		if torn < pageSize/sectorSize {
			l.Torn++
		}
	}
	return nil
}
