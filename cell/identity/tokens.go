package identity

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"time"

	"quicproquo.dev/cell/store"
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
	switch left := p.ExpiresAt.Sub(now); {
	case left <= 0:
		return Principal{}, wire.Errorf(wire.CodeExpiredToken, "the access token has expired; refresh the session")
	case left > longestAccess+clockSkew: // Of a clock that was wrong once: it would open connections until that time comes.
		return Principal{}, wire.Errorf(wire.CodeExpiredToken, "the access token is of another time; refresh the session")
	}
	return p, nil
}

const (
	longestAccess = 24 * time.Hour   // That any policy gives an access token.
	clockSkew     = 10 * time.Minute // By which clocks of replicas may differ.
)

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

// sessionEnd is when a session ends that began at created, however often its tokens were exchanged.
func (s *Service) sessionEnd(created time.Time) time.Time {
	return created.Add(time.Duration(s.policy().Sessions.MaxAge))
}

// refreshEnd is until when a refresh token can be exchanged that is issued now.
func (s *Service) refreshEnd(created, now time.Time) time.Time {
	return earlier(now.Add(time.Duration(s.policy().Sessions.RefreshTokenTTL)), s.sessionEnd(created))
}

// accessEnd is until when an access token opens connections that is issued now.
func (s *Service) accessEnd(created, now time.Time) time.Time {
	return earlier(now.Add(time.Duration(s.policy().Sessions.AccessTokenTTL)), s.sessionEnd(created))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// judged is what a refresh token is to its session.
type judged int

const (
	tokenInvalid  judged = iota
	tokenPresent         // The one that was issued last.
	tokenPrevious        // The one before, which is taken once more.
	tokenExpired         // One of these, but too late.
	tokenReused          // It was spent before: there are two who have had it.
)

// judge says what a refresh token is to the session that it names. Of one that has ended without its tokens' doing nothing
// else can be told from a token that is not its.
func (s *Service) judge(n *store.Session, device ids.ID, token []byte, now time.Time) judged {
	hash := hashRefresh(token)
	is := tokenReused
	switch {
	case subtle.ConstantTimeCompare(hash, n.RefreshHash) == 1:
		is = tokenPresent
	case subtle.ConstantTimeCompare(hash, n.PreviousHash) == 1:
		is = tokenPrevious
	}
	over := !now.Before(n.ExpiresAt) || !now.Before(s.sessionEnd(n.CreatedAt))
	switch {
	case n.DeviceID != device || is == tokenReused && (over || n.Revoked):
		return tokenInvalid
	case over:
		return tokenExpired
	case n.Revoked:
		return tokenInvalid
	}
	return is
}

func errSessionOver() *wire.Error {
	return wire.Errorf(wire.CodeExpiredToken, "the session has lasted as long as it may, or was not used for too long; log in again")
}
