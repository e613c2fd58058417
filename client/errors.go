package client

import (
	"errors"
	"fmt"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/client/inorder"
	"quicproquo.dev/client/keystore"
	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

var (
	// ErrNoAccount says that the profile holds no account.
	ErrNoAccount = errors.New("this profile holds no account: sign up or log in first")
	// ErrLoggedOut says that the profile's device was logged out.
	ErrLoggedOut = errors.New("this profile is logged out: log in again")
	// ErrPasswordChanged says that the profile's passphrase is not the account's password any more.
	ErrPasswordChanged = errors.New("the passphrase that opens this profile is not the account's: it was changed on another device, or the account was deleted; log in with the present one")
	// ErrDeleted says that the profile's account was deleted, by this profile.
	ErrDeleted = errors.New("this profile's account was deleted: delete it once more to remove what is left of the profile")
	// ErrNotName says that a name that was typed is not the account's.
	ErrNotName = errors.New("that is not the account's name; nothing was deleted")
	// ErrGone says that a contact's account is there no more.
	ErrGone = errors.New("that account was deleted: nothing can be written to it any more")
	// ErrAccountExists says that a signup was asked of a profile that holds an account.
	ErrAccountExists = errors.New("this profile holds an account already: use another profile directory")
	// ErrOtherAccount says that a profile holds another account than the one asked for.
	ErrOtherAccount = errors.New("this profile belongs to another account: use another profile directory")
	// ErrOtherCell says that a cell is not the one that the profile belongs to.
	ErrOtherCell = errors.New("this is another cell than the one the profile belongs to: its data is new or it is a different installation")
	// ErrNoCell says that no cell was named, neither now nor at signup.
	ErrNoCell = errors.New("no cell is given: name one as HOST:PORT")
	// ErrNotUTF8 says that a text is not UTF-8.
	ErrNotUTF8 = errors.New("the text is not valid UTF-8")
	// ErrNotInGroup says that a channel's group does not know this device.
	ErrNotInGroup = errors.New("the conversation was set up without this device, which therefore has no keys for it: write from a device that has it")
	// ErrReplaced says that another subscription of the same device took over.
	ErrReplaced = errors.New("another reader of this profile took over")
	// ErrRevoked says that the device was revoked.
	ErrRevoked = errors.New("this device was revoked: log in with a new profile directory to add a new device")
	// ErrForgedLink says that a new device, or its approval, is not what was made with the code.
	ErrForgedLink = errors.New("what came with that code was not made by the device that shows it, or approved it: somebody may stand in between; start over, and approve nothing that you do not hold in your hands")
	// ErrSelf says that a direct channel was asked for with the own account.
	ErrSelf = errors.New("you cannot send a direct message to yourself")
	// ErrUntrusted says that what the cell handed out is not what it says.
	ErrUntrusted = errors.New("the cell handed out something that does not verify")
)

// RootKeyChangedError says that an account appears under another root key, or a name under another account, than when
// it was first seen. Either its people lost everything and started over, or somebody stands in between.
type RootKeyChangedError struct {
	Name    string
	Account ids.ID
}

// Error implements error.
func (e *RootKeyChangedError) Error() string {
	return fmt.Sprintf("the keys of %s (account %s) are not the ones seen before: ask them in person what happened before you write again",
		e.Name, e.Account)
}

// TooLongError says that a text does not fit into one message.
type TooLongError struct{ Bytes, Limit int }

// Error implements error.
func (e *TooLongError) Error() string {
	return fmt.Sprintf("the text takes %d bytes, one message holds at most %d: split it", e.Bytes, e.Limit)
}

// QueuedError says that a message was saved and could not be sent. The next SendDM or Read of any process on this
// profile sends it, once.
type QueuedError struct {
	DeliveryID ids.ID
	Cause      error
}

// Error implements error.
func (e *QueuedError) Error() string {
	return fmt.Sprintf("the message is saved, and is sent with the next message or when you next read: %v", e.Cause)
}

// Unwrap returns the cause.
func (e *QueuedError) Unwrap() error { return e.Cause }

// Code names err's kind in one word, for machines: a wire.Code's name where the cell answered with a structured
// error, else one of this package's.
func Code(err error) string {
	var structured *wire.Error
	if errors.As(err, &structured) {
		return structured.Code.String()
	}
	for _, k := range kinds {
		if k.is(err) {
			return k.name
		}
	}
	return "failed"
}

type kind struct {
	name string
	is   func(error) bool
}

func is(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }

func as[T error]() func(error) bool {
	return func(err error) bool {
		var target T
		return errors.As(err, &target)
	}
}

var kinds = []kind{
	{"wrongPassphrase", is(keystore.ErrWrongPassphrase)},
	{"emptyPassphrase", is(keystore.ErrEmptyPassphrase)},
	{"noProfile", is(keystore.ErrNoProfile)},
	{"corruptProfile", as[*keystore.CorruptError]()},
	{"noAccount", is(ErrNoAccount)},
	{"loggedOut", is(ErrLoggedOut)},
	{"accountDeleted", is(ErrDeleted)},
	{"wrongName", is(ErrNotName)},
	{"invalidCode", is(codes.ErrNone)},
	{"accountExists", is(ErrAccountExists)},
	{"otherAccount", is(ErrOtherAccount)},
	{"otherCell", is(ErrOtherCell)},
	{"noCell", is(ErrNoCell)},
	{"invalidText", is(ErrNotUTF8)},
	{"textTooLong", as[*TooLongError]()},
	{"notInGroup", is(ErrNotInGroup)},
	{"sessionReplaced", is(ErrReplaced)},
	{"deviceRevoked", is(ErrRevoked)},
	{"invalidArgument", is(ErrSelf)},
	{"contactPending", as[*PendingError]()},
	{"rootKeyChanged", as[*RootKeyChangedError]()},
	{"untrusted", is(ErrUntrusted)},
	{"forgedLink", is(ErrForgedLink)},
	{"wrongCA", is(conn.ErrWrongCA)},
	{"wrongPin", is(conn.ErrWrongPin)},
	{"wrongHost", is(conn.ErrWrongHost)},
	{"noTrust", is(conn.ErrNoTrust)},
	{"invalidCA", is(conn.ErrInvalidCA)},
	{"invalidPin", is(conn.ErrInvalidPin)},
	{"tls", is(conn.ErrTLS)},
	{"clientCertificate", as[*conn.CertificateError]()},
	{"invalidClientCertificate", is(conn.ErrInvalidCertificate)},
	{"protocol", is(conn.ErrProtocol)},
	{"protocol", is(inorder.ErrGap)},
	{"unreachable", as[*conn.UnreachableError]()},
	{"connectionRefused", as[*conn.RefusedError]()},
	{"connectionLost", as[*conn.LostError]()},
}

// Retryable reports whether the same operation may succeed later without anything being changed.
func Retryable(err error) bool { return conn.Transient(err) }
