// Package devicecert encodes the certificate by which an account's root key vouches for a device, and the proof by
// which a device binds itself to one connection. The certificate is also the identity of the device's MLS
// credential, so that no leaf enters a group without the root's signature.
//
// Layout, all integers big-endian, 169 bytes:
//
//	0    version     1 byte, 1
//	1    accountId   16 bytes
//	17   deviceId    16 bytes
//	33   rootKey     32 bytes, Ed25519
//	65   deviceKey   32 bytes, Ed25519; the device's MLS signature key
//	97   issuedAt    8 bytes, milliseconds since 1970 UTC
//	105  signature   64 bytes, by rootKey over the label "qpq/1 device certificate\x00" and bytes 0–104
package devicecert

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"quicproquo.dev/schema/ids"
)

// Size is the length of an encoded certificate in bytes.
const Size = 169

const (
	version    = 1
	signedSize = Size - ed25519.SignatureSize
	certLabel  = "qpq/1 device certificate\x00"
	proofLabel = "qpq/1 connection proof\x00"

	// ExporterLabel names the TLS exporter (RFC 8446 §7.5, empty context) that Prove signs.
	ExporterLabel = "EXPORTER-qpq-device-binding"
	// ExporterSize is the length of the exported value in bytes.
	ExporterSize = 32
)

// ErrInvalid says that a certificate is not one, or not signed by its root.
var ErrInvalid = errors.New("invalid device certificate")

// Certificate binds a device and its key to an account and its root key.
type Certificate struct {
	AccountID, DeviceID ids.ID
	RootKey, DeviceKey  ed25519.PublicKey
	IssuedAt            time.Time // Millisecond precision.
	signature           []byte
}

// Issue signs a certificate with the account's root key.
func Issue(root ed25519.PrivateKey, account, device ids.ID, deviceKey ed25519.PublicKey, now time.Time) *Certificate {
	c := &Certificate{AccountID: account, DeviceID: device, RootKey: root.Public().(ed25519.PublicKey),
		DeviceKey: deviceKey, IssuedAt: now.Truncate(time.Millisecond)}
	c.signature = ed25519.Sign(root, append([]byte(certLabel), c.signed()...))
	return c
}

func (c *Certificate) signed() []byte {
	b := append(make([]byte, 0, Size), version)
	b = append(b, c.AccountID[:]...)
	b = append(b, c.DeviceID[:]...)
	b = append(b, c.RootKey...)
	b = append(b, c.DeviceKey...)
	return binary.BigEndian.AppendUint64(b, uint64(c.IssuedAt.UnixMilli())) //nolint:gosec // round-trips.
}

// Marshal returns the certificate's Size bytes.
func (c *Certificate) Marshal() []byte { return append(c.signed(), c.signature...) }

// Parse decodes a certificate and verifies its root's signature; the caller decides whether that root is the
// account's. The certificate does not alias b.
func Parse(b []byte) (*Certificate, error) {
	if len(b) != Size {
		return nil, fmt.Errorf("%w: %d bytes, not %d", ErrInvalid, len(b), Size)
	}
	if b[0] != version {
		return nil, fmt.Errorf("%w: version %d, only %d is known", ErrInvalid, b[0], version)
	}
	b = append([]byte(nil), b...)
	c := &Certificate{AccountID: ids.ID(b[1:17]), DeviceID: ids.ID(b[17:33]),
		RootKey: b[33:65], DeviceKey: b[65:97],
		IssuedAt:  time.UnixMilli(int64(binary.BigEndian.Uint64(b[97:105]))), //nolint:gosec // any time is a time.
		signature: b[signedSize:]}
	if !ed25519.Verify(c.RootKey, append([]byte(certLabel), b[:signedSize]...), c.signature) {
		return nil, fmt.Errorf("%w: the root's signature does not verify", ErrInvalid)
	}
	return c, nil
}

// Prove signs a connection's TLS exporter value with the device key: whoever holds only a stolen token cannot.
func Prove(device ed25519.PrivateKey, exporter []byte) []byte {
	return ed25519.Sign(device, append([]byte(proofLabel), exporter...))
}

// VerifyProof reports whether proof was made by Prove with key's private half on the connection of exporter.
func VerifyProof(key ed25519.PublicKey, exporter, proof []byte) bool {
	return len(key) == ed25519.PublicKeySize && len(exporter) == ExporterSize &&
		ed25519.Verify(key, append([]byte(proofLabel), exporter...), proof)
}
