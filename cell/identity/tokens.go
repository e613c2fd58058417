package identity

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Principal is whom an authenticated connection speaks for.
type Principal struct {
	AccountID, DeviceID, SessionID ids.ID
	DeviceKey                      ed25519.PublicKey
	ExpiresAt                      time.Time // Of the access token.
}

// An access token is checked without the database. Integers are big-endian:
//
//	0    key id     4 bytes
//	4    account    16 bytes
//	20   device     16 bytes
//	36   session    16 bytes
//	52   deviceKey  32 bytes
//	84   expiry     8 bytes, milliseconds since 1970 UTC
//	92   HMAC-SHA256 of a label and bytes 0–91
const (
	accessBody = 92
	accessSize = accessBody + sha256.Size
	tokenLabel = "qpq/1 access token\x00"
)

// tokens makes and checks access tokens; the first key signs, all verify.
type tokens struct{ keys []cellkeys.Key }

func (t tokens) mac(key, body []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(tokenLabel))
	m.Write(body)
	return m.Sum(nil)
}

func (t tokens) issue(p Principal) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, accessSize), t.keys[0].ID)
	b = append(b, p.AccountID[:]...)
	b = append(b, p.DeviceID[:]...)
	b = append(b, p.SessionID[:]...)
	b = append(b, p.DeviceKey...)
	b = binary.BigEndian.AppendUint64(b, uint64(p.ExpiresAt.UnixMilli())) //nolint:gosec // after 1970.
	return append(b, t.mac(t.keys[0].Key, b)...)
}

func (t tokens) check(token []byte, now time.Time) (Principal, error) {
	if len(token) != accessSize || !t.verifies(token) {
		return Principal{}, wire.Errorf(wire.CodeInvalidToken, "this cell did not issue that access token; refresh the session or log in")
	}
	p := Principal{AccountID: ids.ID(token[4:20]), DeviceID: ids.ID(token[20:36]), SessionID: ids.ID(token[36:52]),
		DeviceKey: ed25519.PublicKey(token[52:84:84]),
		ExpiresAt: time.UnixMilli(int64(binary.BigEndian.Uint64(token[84:92])))} //nolint:gosec // we made it.
	if !now.Before(p.ExpiresAt) {
		return Principal{}, wire.Errorf(wire.CodeExpiredToken, "the access token has expired; refresh the session")
	}
	return p, nil
}

func (t tokens) verifies(token []byte) bool {
	id := binary.BigEndian.Uint32(token)
	for _, k := range t.keys {
		if k.ID == id {
			return hmac.Equal(token[accessBody:], t.mac(k.Key, token[:accessBody]))
		}
	}
	return false
}

// A refresh token is its session's id and 32 random bytes; only its hash is stored.
const refreshSize = ids.Size + 32

func newRefreshToken(session ids.ID) []byte {
	t := append(make([]byte, 0, refreshSize), session[:]...)
	t = t[:refreshSize]
	rand.Read(t[ids.Size:]) //nolint:errcheck // crypto/rand.Read never fails.
	return t
}

func hashRefresh(token []byte) []byte {
	h := sha256.Sum256(token)
	return h[:]
}
