package conn

import (
	"context"
	"errors"
	"fmt"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/schema/wire"
)

var (
	// ErrProtocol says that the cell sent what the protocol does not allow.
	ErrProtocol = errors.New("the cell broke the protocol")
	// ErrClosed says that Close ended the connection.
	ErrClosed = errors.New("the connection was closed")
)

// UnreachableError says that no connection could be made.
type UnreachableError struct {
	Endpoint string
	Cause    error
}

// Error implements error.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("the cell at %s does not answer: check the address, that the cell runs, and that UDP gets through (%v)",
		e.Endpoint, e.Cause)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Cause }

// RefusedError says that the cell takes no more connections for now: it has as many as it may, or as many as it takes
// from this address, or they come too fast.
type RefusedError struct {
	Endpoint string
	Cause    error
}

// Error implements error.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("the cell at %s takes no more connections from here at the moment: try again in a while", e.Endpoint)
}

// Unwrap returns the cause.
func (e *RefusedError) Unwrap() error { return e.Cause }

// closeFull is the application error code by which a cell refuses a connection after its handshake.
const closeFull quic.ApplicationErrorCode = 4

// refuses reports whether err is a cell's refusal of a connection.
func refuses(err error) bool {
	var transport *quic.TransportError
	if errors.As(err, &transport) {
		return transport.Remote && transport.ErrorCode == quic.ConnectionRefused
	}
	var application *quic.ApplicationError
	return errors.As(err, &application) && application.Remote && application.ErrorCode == closeFull
}

// LostError says that a connection broke. What had been asked may or may not have been done.
type LostError struct{ Cause error }

// Error implements error.
func (e *LostError) Error() string {
	return fmt.Sprintf("the connection to the cell was lost: %v", e.Cause)
}

// Unwrap returns the cause.
func (e *LostError) Unwrap() error { return e.Cause }

// Transient reports whether a new connection, or the same request later, may succeed.
func Transient(err error) bool {
	var unreachable *UnreachableError
	var refused *RefusedError
	var lost *LostError
	var structured *wire.Error
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, ErrProtocol), errors.Is(err, ErrClosed):
		return false
	case errors.As(err, &structured):
		return structured.Retryable
	}
	return errors.As(err, &unreachable) || errors.As(err, &refused) || errors.As(err, &lost)
}
