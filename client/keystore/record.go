package keystore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// A record's file:
//
//	0    magic "QPQREC1\n"
//	8    version, 16 random bytes, new with every write
//	24   nonce, 12 bytes
//	36   the file key under the record's key, 48 bytes; bytes 0–23 are authenticated with it
//	84   nonce, 12 bytes
//	96   the content under the file key; bytes 0–95 are authenticated with it
const (
	recordMagic   = "QPQREC1\n"
	versionOffset = len(recordMagic)
	fileKeyNonce  = versionOffset + versionSize
	fileKeyOffset = fileKeyNonce + nonceSize
	bodyNonce     = fileKeyOffset + keySize + tagSize
	bodyOffset    = bodyNonce + nonceSize
	versionSize   = 16
)

// Version names one version of one record; no two writes have the same.
type Version [versionSize]byte

// sealRecord returns the file of a new version of a record.
func sealRecord(profileKey []byte, name string, content []byte) []byte {
	b := append(make([]byte, 0, bodyOffset+len(content)+tagSize), recordMagic...)
	b = append(b, random(versionSize+nonceSize)...)
	fileKey := random(keySize)
	defer clear(fileKey)
	kek := recordKey(profileKey, name, Version(b[versionOffset:fileKeyNonce]))
	defer clear(kek)
	b = gcm(kek).Seal(b, b[fileKeyNonce:fileKeyOffset], fileKey, b[:fileKeyNonce])
	b = append(b, random(nonceSize)...)
	return gcm(fileKey).Seal(b, b[bodyNonce:bodyOffset], content, b[:bodyOffset])
}

// openRecord reverses sealRecord. path is for errors only. The content is the caller's.
func openRecord(profileKey []byte, path, name string, b []byte) ([]byte, error) {
	if len(b) < bodyOffset+tagSize || string(b[:versionOffset]) != recordMagic {
		return nil, &CorruptError{path, "not a record file, or cut short"}
	}
	kek := recordKey(profileKey, name, Version(b[versionOffset:fileKeyNonce]))
	defer clear(kek)
	fileKey, err := gcm(kek).Open(nil, b[fileKeyNonce:fileKeyOffset], b[fileKeyOffset:bodyNonce], b[:fileKeyNonce])
	if err != nil {
		return nil, &CorruptError{path, "its key does not open"}
	}
	defer clear(fileKey)
	content, err := gcm(fileKey).Open(nil, b[bodyNonce:bodyOffset], b[bodyOffset:], b[:bodyOffset])
	if err != nil {
		return nil, &CorruptError{path, "its content does not open"}
	}
	return content, nil
}

// readVersion reads a record's version without decrypting anything.
func readVersion(path string) (Version, error) {
	f, err := os.Open(path) //nolint:gosec // a path of our own making.
	if errors.Is(err, fs.ErrNotExist) {
		return Version{}, ErrNotFound
	}
	if err != nil {
		return Version{}, err
	}
	defer f.Close()
	var head [fileKeyNonce]byte
	if _, err := io.ReadFull(f, head[:]); err != nil || string(head[:versionOffset]) != recordMagic {
		return Version{}, &CorruptError{path, "not a record file, or cut short"}
	}
	return Version(head[versionOffset:]), nil
}

// wipe overwrites a record file's header, and with it the only copy of its file key.
func wipe(f *os.File) error {
	junk := make([]byte, bodyOffset)
	rand.Read(junk) //nolint:errcheck // never fails.
	if _, err := f.WriteAt(junk, 0); err != nil {
		return fmt.Errorf("overwriting a replaced record: %w", err)
	}
	return f.Sync()
}
