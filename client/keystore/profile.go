package keystore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// The profile file, integers big-endian:
//
//	0   magic "QPQPROF1"
//	8   Argon2id time, u32; memory in KiB, u32; threads, u8; three zero bytes
//	20  salt, 16 bytes
//	36  nonce, 12 bytes
//	48  the profile key under AES-256-GCM, 48 bytes; bytes 0–35 are authenticated with it
//	96  SHA-256 of bytes 0–95, which tells damage from a wrong passphrase
const (
	profileMagic  = "QPQPROF1"
	profileFile   = "profile"
	saltOffset    = 20
	nonceOffset   = saltOffset + saltSize
	wrappedOffset = nonceOffset + nonceSize
	sumOffset     = wrappedOffset + keySize + tagSize
	profileSize   = sumOffset + sha256.Size
)

// sealProfile returns a profile file that holds key.
func sealProfile(key, passphrase []byte, k KDF) []byte {
	b := append(make([]byte, 0, profileSize), profileMagic...)
	b = binary.BigEndian.AppendUint32(b, k.Time)
	b = binary.BigEndian.AppendUint32(b, k.MemoryKiB)
	b = append(b, k.Threads, 0, 0, 0)
	b = append(b, random(saltSize+nonceSize)...)
	kek := k.derive(passphrase, b[saltOffset:nonceOffset])
	defer clear(kek)
	b = gcm(kek).Seal(b, b[nonceOffset:wrappedOffset], key, b[:nonceOffset])
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// openProfile reverses sealProfile. path is for errors only.
func openProfile(path string, b, passphrase []byte) ([]byte, KDF, error) {
	if len(b) != profileSize || string(b[:len(profileMagic)]) != profileMagic {
		return nil, KDF{}, &CorruptError{path, "not a profile file"}
	}
	if sum := sha256.Sum256(b[:sumOffset]); !bytes.Equal(sum[:], b[sumOffset:]) {
		return nil, KDF{}, &CorruptError{path, "checksum differs"}
	}
	k := KDF{binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:]), b[16]}
	if !k.valid() {
		return nil, KDF{}, &CorruptError{path, "Argon2id parameters out of range"}
	}
	kek := k.derive(passphrase, b[saltOffset:nonceOffset])
	defer clear(kek)
	key, err := gcm(kek).Open(nil, b[nonceOffset:wrappedOffset], b[wrappedOffset:sumOffset], b[:nonceOffset])
	if err != nil {
		return nil, KDF{}, ErrWrongPassphrase
	}
	return key, k, nil
}

// Exists reports whether dir holds a profile.
func Exists(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, profileFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Create makes a profile in dir, which it creates when it is missing. A zero kdf means DefaultKDF. The passphrase
// stays the caller's. Errors: ErrProfileExists, ErrEmptyPassphrase.
func Create(dir string, passphrase []byte, kdf KDF) (*Store, error) {
	if kdf == (KDF{}) {
		kdf = DefaultKDF()
	}
	switch {
	case len(passphrase) == 0:
		return nil, ErrEmptyPassphrase
	case !kdf.valid():
		return nil, fmt.Errorf("keystore: Argon2id parameters out of range: %+v", kdf)
	}
	if err := makeDirs(dir); err != nil {
		return nil, err
	}
	s := &Store{dir: dir, key: random(keySize), kdf: kdf}
	if err := s.writeProfile(sealProfile(s.key, passphrase, kdf)); err != nil {
		return nil, err
	}
	return s, nil
}

func makeDirs(dir string) error {
	for _, d := range []string{dir, filepath.Join(dir, recordsDir), filepath.Join(dir, locksDir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("making the profile's directory: %w", err)
		}
	}
	return nil
}

// writeProfile links the finished file into place, so that of two creators one fails.
func (s *Store) writeProfile(content []byte) error {
	path := filepath.Join(s.dir, profileFile)
	tmp, err := writeTemp(s.dir, profileFile, content)
	if err != nil {
		return err
	}
	defer os.Remove(tmp) //nolint:errcheck // a leftover is swept by Open.
	if err := os.Link(tmp, path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s: %w", s.dir, ErrProfileExists)
		}
		return fmt.Errorf("writing the profile: %w", err)
	}
	return syncDir(s.dir)
}

// Open opens the profile in dir and finishes what a crash may have left undone. The passphrase stays the caller's.
// Errors: ErrNoProfile, ErrEmptyPassphrase, ErrWrongPassphrase, *CorruptError.
func Open(dir string, passphrase []byte) (*Store, error) {
	path := filepath.Join(dir, profileFile)
	content, err := os.ReadFile(path) //nolint:gosec // the caller's own profile.
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: %w", dir, ErrNoProfile)
	case err != nil:
		return nil, fmt.Errorf("reading the profile: %w", err)
	case len(passphrase) == 0:
		return nil, ErrEmptyPassphrase
	}
	s := &Store{dir: dir}
	if err := s.openEither(content, passphrase); err != nil {
		return nil, err
	}
	if err := makeDirs(dir); err != nil {
		return nil, err
	}
	return s, s.sweep()
}
