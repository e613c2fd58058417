package conn

import (
	"context"
	"errors"
	"fmt"

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
	var lost *LostError
	var structured *wire.Error
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, ErrProtocol), errors.Is(err, ErrClosed):
		return false
	case errors.As(err, &structured):
		return structured.Retryable
	}
	return errors.As(err, &unreachable) || errors.As(err, &lost)
}
