// Package opaqueconf fixes the OPAQUE configuration (RFC 9807 §7) that clients and cells of this protocol share.
// An independent implementation must use the very same one: docs/protocol.md spells it out.
package opaqueconf

import (
	"crypto"

	"github.com/bytemare/ksf"
	"github.com/bytemare/opaque"
)

const (
	argonTime      = 3
	argonMemoryKiB = 64 << 10
	argonThreads   = 4
	ksfLength      = 64
	ksfSaltLength  = 16
)

// Configuration is ristretto255-SHA512 for the OPRF and the key exchange, SHA-512 throughout, an empty context, and
// Argon2id as key stretching function.
func Configuration() *opaque.Configuration {
	return &opaque.Configuration{OPRF: opaque.RistrettoSha512, AKE: opaque.RistrettoSha512,
		KDF: crypto.SHA512, MAC: crypto.SHA512, Hash: crypto.SHA512, KSF: ksf.Argon2id}
}

// ClientOptions sets Argon2id to t=3, 64 MiB, p=4, 64 bytes of output and RFC 9807's zero salt of 16 bytes. Every
// RegistrationFinalize and GenerateKE3 of a client must be given them.
func ClientOptions() *opaque.ClientOptions {
	return &opaque.ClientOptions{KSFSalt: make([]byte, ksfSaltLength), KSFLength: ksfLength,
		KSFParameters: []uint64{argonTime, argonMemoryKiB, argonThreads}}
}
