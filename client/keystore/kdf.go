package keystore

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"

	"golang.org/x/crypto/argon2"
)

const (
	keySize   = 32
	nonceSize = 12
	tagSize   = 16
	saltSize  = 16
)

// KDF holds the cost of Argon2id (RFC 9106 §3.1).
type KDF struct {
	Time      uint32 // Passes.
	MemoryKiB uint32
	Threads   uint8
}

// Bounds on what a profile file may make us spend: it is read before anything in it is authenticated.
const (
	maxTime      = 64
	maxMemoryKiB = 1 << 20
	maxThreads   = 64
)

// DefaultKDF costs 64 MiB and, on two cores, some tenths of a second.
func DefaultKDF() KDF { return KDF{Time: 3, MemoryKiB: 64 << 10, Threads: 4} }

func (k KDF) valid() bool {
	return k.Time >= 1 && k.Time <= maxTime && k.Threads >= 1 && k.Threads <= maxThreads &&
		k.MemoryKiB >= 8*uint32(k.Threads) && k.MemoryKiB <= maxMemoryKiB
}

func (k KDF) derive(passphrase, salt []byte) []byte {
	return argon2.IDKey(passphrase, salt, k.Time, k.MemoryKiB, k.Threads, keySize)
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) //nolint:errcheck // crypto/rand.Read never fails: it ends the program instead.
	return b
}

// gcm returns AES-256-GCM under a key of keySize bytes.
func gcm(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err == nil {
		var aead cipher.AEAD
		if aead, err = cipher.NewGCM(block); err == nil {
			return aead
		}
	}
	panic("keystore: a key of the wrong size: " + err.Error()) //nolint:forbidigo // every key here is keySize bytes.
}

// recordKey derives the key that wraps the file key of one version of one record.
func recordKey(profileKey []byte, name string, version Version) []byte {
	key, err := hkdf.Key(sha256.New, profileKey, version[:], "qpq/1 keystore record "+name, keySize)
	if err != nil {
		panic("keystore: HKDF refused its input: " + err.Error()) //nolint:forbidigo // the length is a constant that it takes.
	}
	return key
}
