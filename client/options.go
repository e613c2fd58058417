package client

import (
	"crypto/tls"
	"log/slog"
	"time"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/client/keystore"
)

// Options says which profile is used and, where the profile does not know yet, which cell.
type Options struct {
	// Profile is the profile's directory.
	Profile string
	// Passphrase opens the profile and is the account's password. It stays the caller's.
	Passphrase []byte
	// Password is the account's password for Login, where it is not Passphrase: it was changed on another device. The
	// profile is then protected by it too.
	Password []byte
	// Invitation is for Signup with a cell that asks for one.
	Invitation string
	// RecoveryCodes is how many recovery codes Signup and Reset make, at most 16; Client.RecoveryCodes tells them.
	RecoveryCodes int
	// Endpoint is the cell's HOST:PORT. Empty: the one of signup or login.
	Endpoint string
	// CA holds the cell's CA certificates in PEM, Pin the SHA-256 of its key in hex. Both empty: those of signup or
	// login. CA wins over Pin.
	CA  []byte
	Pin string
	// Certificate is shown to a cell that asks for client certificates. The profile does not keep it.
	Certificate *tls.Certificate
	// DeviceName is what the account's people see of a device that signup or login adds.
	DeviceName string
	// Program is the program's name and version, for the cell's logs.
	Program string
	// RetryFor is how long a single operation retries what may pass by itself; zero is 15 seconds.
	RetryFor time.Duration
	// Log takes what is no error of an operation. Nil discards it.
	Log *slog.Logger
	// KDF is the cost of a new profile's passphrase; zero is keystore.DefaultKDF.
	KDF keystore.KDF
	// Now stands in for time.Now.
	Now func() time.Time
}

const (
	defaultProgram  = "quicproquo-go"
	defaultRetryFor = 15 * time.Second
	maxDeviceName   = 128 // Bytes, by the protocol.
)

func (o Options) withDefaults() Options {
	if o.Program == "" {
		o.Program = defaultProgram
	}
	if o.RetryFor == 0 {
		o.RetryFor = defaultRetryFor
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if len(o.DeviceName) > maxDeviceName {
		o.DeviceName = ""
	}
	o.Passphrase = append([]byte(nil), o.Passphrase...)
	o.Password = append([]byte(nil), o.Password...)
	return o
}

// forget zeroes the options' own copies of passphrase and password.
func (o Options) forget() {
	clear(o.Passphrase)
	clear(o.Password)
}

// password is the account's.
func (o Options) password() []byte {
	if len(o.Password) > 0 {
		return o.Password
	}
	return o.Passphrase
}

// cell returns where and how to connect, from the options and, where they are silent, the profile.
func (o Options) cell(known cellRecord) (cellRecord, error) {
	if o.Endpoint != "" {
		known.Endpoint = o.Endpoint
	}
	if len(o.CA) > 0 || o.Pin != "" {
		known.CA, known.Pin = o.CA, o.Pin
	}
	if known.Endpoint == "" {
		return known, ErrNoCell
	}
	_, err := known.trust()
	return known, err
}

// trust makes the connection's trust of what is recorded.
func (r cellRecord) trust() (conn.Trust, error) {
	switch {
	case len(r.CA) > 0:
		return conn.TrustCA(r.CA)
	case r.Pin != "":
		return conn.TrustPin(r.Pin)
	}
	return conn.Trust{}, conn.ErrNoTrust
}
