package channels

import (
	"errors"
	"strconv"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Refusal turns what the store says of a message, a Commit or a proposal for a channel into the answer of the wire. Other
// errors stay as they are.
func Refusal(err error, p *policy.Policy, channel, delivery ids.ID) error {
	var epoch *store.EpochError
	var remove *store.RemoveFirstError
	switch {
	case errors.As(err, &epoch):
		return wire.Errorf(wire.CodeEpochConflict, "the channel is at epoch %d of generation %d; catch up to sequence %d and make the message again", epoch.Epoch, epoch.Generation, epoch.Seq).
			With("epoch", strconv.FormatUint(epoch.Epoch, 10)).With("seq", strconv.FormatUint(epoch.Seq, 10)).
			With("generation", strconv.FormatUint(uint64(epoch.Generation), 10))
	case errors.As(err, &remove):
		return wire.Errorf(wire.CodeRemoveFirst, "device %s was revoked: commit its removal first", remove.Device).With("device", remove.Device.String())
	case errors.Is(err, store.ErrMuted):
		return unwanted(p)
	case errors.Is(err, store.ErrDeliveryIDReused):
		return wire.Errorf(wire.CodeDeliveryIDReused, "delivery id %s was used for another message; take a fresh one", delivery)
	case errors.Is(err, store.ErrNotFound):
		return wire.Errorf(wire.CodeNotFound, "there is no channel %s that you are in", channel)
	case errors.Is(err, store.ErrClosed):
		return wire.Errorf(wire.CodeNotFound, "channel %s takes no messages any more: the account at its other end was deleted", channel).With("reason", "accountDeleted")
	case errors.Is(err, store.ErrRevoked):
		return wire.Errorf(wire.CodePermissionDenied, "one of the devices was revoked meanwhile")
	case errors.Is(err, store.ErrMoved):
		return wire.RetryAfterf(wire.CodeBusy, busyRetry, "channel %s changes all the time; try again", channel)
	}
	return err
}

// unwanted is the answer to an account that another does not want to hear from. Where contacts are asked for, it is the
// same for one that was blocked and for one that was not answered yet.
func unwanted(p *policy.Policy) *wire.Error {
	if p.Contacts == policy.ContactsRequest {
		return wire.Errorf(wire.CodeContactPending, "the other account has not accepted to be written to")
	}
	return wire.Errorf(wire.CodePermissionDenied, "the other account does not want to be written to")
}
