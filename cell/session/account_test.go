package session

import (
	"context"

	"quicproquo.dev/cell/identity"
	"quicproquo.dev/schema/wire"
)

func (s *stubs) DeleteAccount(context.Context, *identity.Login, *wire.DeleteAccountRequest) (*wire.Done, error) {
	s.calls.Add(1)
	return &wire.Done{}, nil
}

func (s *stubs) ExportAccount(context.Context, identity.Principal, *wire.ExportAccountRequest) (*wire.ExportPage, error) {
	s.calls.Add(1)
	return &wire.ExportPage{Lines: []byte("{}\n")}, nil
}
