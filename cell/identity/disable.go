package identity

import (
	"context"
	"errors"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// A disabled account answers as any other does until its password, a code of it, or one of its devices is proven: who has
// none of these does not find out.

// ErrDisabled is the answer to who has proven to be of a disabled account.
func ErrDisabled() *wire.Error {
	return wire.Errorf(wire.CodeAccountDisabled, "the cell's admin has disabled this account; ask them why")
}

// disabled makes the store's word the wire's.
func disabled(err error) error {
	if errors.Is(err, store.ErrDisabled) {
		return ErrDisabled()
	}
	return err
}

// SetDisabled shuts an account out, or lets it in again, for whoever may: the caller has checked that. Its sessions end,
// and it cannot log in; what it has stays, and others' messages wait for it. notFound: there is no such account.
func (s *Service) SetDisabled(ctx context.Context, account ids.ID, disabled bool, by audit.By) error {
	now := s.now()
	event := audit.AccountEnabled(by, account)
	if disabled {
		event = audit.AccountDisabled(by, account)
	}
	if err := s.revokedBy(s.store.SetDisabled(ctx, account, disabled, now, event.At(now))); err != nil {
		return noAccount(err)
	}
	s.log.InfoContext(ctx, "account disabled or enabled", "account", account, "disabled", disabled)
	return nil
}

// EndSessions ends the sessions of all devices of an account, for whoever may. notFound: there is no such account.
func (s *Service) EndSessions(ctx context.Context, account ids.ID, by audit.By) error {
	now := s.now()
	return noAccount(s.revokedBy(s.store.EndSessions(ctx, account, now, audit.SessionRevoked(by, account, ids.ID{}, ids.ID{}, audit.ReasonByAdmin).At(now))))
}

// AccountForAdmin looks an account up, by name when there is one, else by id. notFound: there is no such account.
func (s *Service) AccountForAdmin(ctx context.Context, name string, id ids.ID) (*wire.AdminAccount, error) {
	a, err := s.accountFor(ctx, name, id)
	if err != nil {
		return nil, noAccount(err)
	}
	list, err := s.ListDevices(ctx, Principal{AccountID: a.ID})
	if err != nil {
		return nil, err
	}
	return &wire.AdminAccount{AccountID: a.ID, Name: a.Name, RootKey: a.RootKey, CreatedAt: a.CreatedAt, Disabled: a.Disabled, Devices: list.Devices}, nil
}

func (s *Service) accountFor(ctx context.Context, name string, id ids.ID) (store.Account, error) {
	if name == "" {
		return s.store.AccountByID(ctx, id)
	}
	prepared, err := prepareName(name)
	if err != nil {
		return store.Account{}, err
	}
	return s.store.AccountByName(ctx, prepared)
}
