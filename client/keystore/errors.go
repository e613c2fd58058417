package keystore

import (
	"errors"
	"fmt"
)

var (
	// ErrNoProfile says that the directory holds no profile.
	ErrNoProfile = errors.New("there is no profile here")
	// ErrProfileExists says that the directory holds a profile already.
	ErrProfileExists = errors.New("there is a profile here already")
	// ErrWrongPassphrase says that the passphrase does not open the profile.
	ErrWrongPassphrase = errors.New("wrong passphrase for this profile")
	// ErrEmptyPassphrase says that no passphrase was given.
	ErrEmptyPassphrase = errors.New("the passphrase is empty: choose one")
	// ErrNotFound says that there is no such record.
	ErrNotFound = errors.New("no such record")
	// ErrReadOnly says that a View tried to write.
	ErrReadOnly = errors.New("records cannot be changed in a View")
	// ErrInvalidName says that a record or lock has a name that is not lower-case letters, digits and dashes.
	ErrInvalidName = errors.New("invalid record name")
)

// CorruptError says that a file of the profile is damaged or was tampered with.
type CorruptError struct {
	File   string // The file's path.
	Reason string
}

// Error implements error.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s is damaged (%s): restore it from a backup of the profile, or make a new profile", e.File, e.Reason)
}
