package identity

import (
	"context"
	"errors"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// DeleteAccount deletes the account that the connection has proven by its password. There is no way back. When it returns,
// the name is free and nobody gets into the account; what is left is removed by RunDeletions.
func (s *Service) DeleteAccount(ctx context.Context, l *Login, r *wire.DeleteAccountRequest) (*wire.Done, error) {
	now := s.now()
	if err := errors.Join(l.check(now), s.mayStart(l)); err != nil {
		return nil, firstOf(err)
	}
	if name, err := prepareName(r.Name); err != nil || name != l.account.Name {
		return nil, wire.Errorf(wire.CodeInvalidArgument, "that is not the account's name, and nothing was deleted").With("field", "name")
	}
	proof := l.proof()
	err := s.delete(ctx, l.account.ID, &proof, audit.ByAccount(l.account.ID), now)
	switch {
	case errors.Is(err, store.ErrNotFound): // Deleted a moment ago, by another device or an admin.
	case err != nil:
		return nil, s.changed(ctx, l, ids.ID{}, err)
	}
	l.proven = false
	return &wire.Done{}, nil
}

// firstOf is the first of errors that were joined.
func firstOf(err error) error {
	var e *wire.Error
	if errors.As(err, &e) {
		return e
	}
	return err
}

// DeleteAccountByAdmin deletes an account, for whoever may: the caller has checked that. notFound: there is no such account.
func (s *Service) DeleteAccountByAdmin(ctx context.Context, account ids.ID, by audit.By) error {
	return noAccount(s.delete(ctx, account, nil, by, s.now()))
}

func (s *Service) delete(ctx context.Context, account ids.ID, proof *store.Proof, by audit.By, now time.Time) error {
	err := s.store.BeginDeletion(ctx, &store.Deletion{Account: account, Proof: proof, At: now, Attempts: s.attemptsOf,
		Event: func(devices int) audit.Event { return audit.AccountDeleted(by, account, devices).At(now) }})
	if err := s.revokedBy(err); err != nil {
		return err
	}
	s.log.InfoContext(ctx, "account deleted", "account", account)
	select {
	case s.deletions <- struct{}{}:
	default: // It is on its way to look.
	}
	return nil
}

// attemptsOf is under what failed logins of an account are counted, as far as that is its own alone.
func (s *Service) attemptsOf(name string, devices []ids.ID) [][]byte {
	subjects := [][]byte{s.store.AttemptSubject(nameRule.kind, name)}
	for _, d := range devices {
		subjects = append(subjects, s.store.AttemptSubject(deviceRule.kind, string(d[:])))
	}
	return subjects
}

func noAccount(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return wire.Errorf(wire.CodeNotFound, "there is no such account")
	}
	return err
}

const (
	deletionsEvery = 5 * time.Minute // Those that another process began, or did not finish.
	deletionsList  = 100
	deletionStep   = 30 * time.Second // For one transaction.
)

// RunDeletions removes what is left of deleted accounts, of those that other processes have deleted too, until ctx ends.
func (s *Service) RunDeletions(ctx context.Context) {
	tick := time.NewTicker(deletionsEvery)
	defer tick.Stop()
	for {
		if err := s.FinishDeletions(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "deleted accounts were not removed altogether; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.deletions:
		case <-tick.C:
		}
	}
}

// FinishDeletions removes what is left of deleted accounts now, and what was kept of earlier ones for messages that have
// expired. One account's trouble does not keep the others.
func (s *Service) FinishDeletions(ctx context.Context) error {
	accounts, err := s.store.Deletions(ctx, deletionsList)
	for _, account := range accounts {
		err = errors.Join(err, s.finishDeletion(ctx, account))
	}
	for more := err == nil; more; {
		more, err = s.store.SweepDeparted(ctx, s.now())
	}
	return err
}

func (s *Service) finishDeletion(ctx context.Context, account ids.ID) error {
	n, err := s.notice(wire.NoticeAccountDeleted, account, ids.ID{}, s.now())
	for more := err == nil; more; {
		more, err = s.deletionStep(ctx, &n)
	}
	return err
}

func (s *Service) deletionStep(ctx context.Context, n *store.Notice) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, deletionStep)
	defer cancel()
	told, more, err := s.store.ContinueDeletion(ctx, n)
	s.tell(told)
	return more, err
}
