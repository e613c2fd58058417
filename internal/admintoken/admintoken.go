// Package admintoken is the credential of an admin who has no client certificate: short-lived, minted by whoever has the
// cell's keys (the operator, or the development mode), and checked by the cell without asking anybody.
//
// A token is, integers big-endian:
//
//	0   key          4 bytes, the id of one of the cell's token keys
//	4   role         1 byte
//	5   not before   8 bytes, seconds since 1970 UTC
//	13  expires      8 bytes, seconds since 1970 UTC
//	21  name         1 to 64 bytes
//	    nonce        16 bytes
//	    tag          32 bytes, HMAC-SHA-256 of all before it
//
// The HMAC key is derived (RFC 5869) from that token key, so that admin tokens rotate with it, and so that neither kind of
// token can pass for the other. As text, a token is Prefix and its base64url without padding.
package admintoken

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"quicproquo.dev/internal/cellkeys"
)

const (
	// MaxLife is the longest time that a token can be valid.
	MaxLife = 24 * time.Hour
	// MaxName is the longest name of an admin, in bytes.
	MaxName = 64
	// Prefix begins a token's text, so that people and scanners know it for what it is.
	Prefix = "qpq-admin-"

	nameAt    = 21
	nonceSize = 16
	tail      = nonceSize + sha256.Size
	// MaxSize is the length of the longest token.
	MaxSize = nameAt + MaxName + tail

	// backdate lets a token be used at once where the cell's clock is late.
	backdate = time.Minute
)

// Role is what an admin may do. The numbers stand in tokens.
type Role uint8

// The roles.
const (
	CellAdmin Role = 1
	Auditor   Role = 2
)

// Errors of Verify. No other is told to whoever shows a token.
var (
	// ErrInvalid says that it is no token of this cell.
	ErrInvalid = errors.New("not an admin token of this cell")
	// ErrExpired says that it was one.
	ErrExpired = errors.New("the admin token has expired")
	// ErrNotYet says that it will be one, by this machine's clock.
	ErrNotYet = errors.New("the admin token is not valid yet; check the clocks")
)

// Claims are what a token says.
type Claims struct {
	Role      Role
	Name      string // Of the admin, for the audit log.
	NotBefore time.Time
	Expires   time.Time
}

// Keys mint and verify the tokens of one cell. They are safe for concurrent use.
type Keys struct {
	newest uint32
	byID   map[uint32][]byte
}

// New derives the keys from a cell's token keys: the first mints, all verify.
func New(tokens []cellkeys.Key) (*Keys, error) {
	if len(tokens) == 0 {
		return nil, errors.New("a cell without token keys mints no admin tokens")
	}
	k := &Keys{tokens[0].ID, make(map[uint32][]byte, len(tokens))}
	for _, t := range tokens {
		derived, err := hkdf.Key(sha256.New, t.Key, nil, "qpq/1 admin token", sha256.Size)
		if err != nil {
			return nil, err
		}
		k.byID[t.ID] = derived
	}
	return k, nil
}

// Mint makes a token for a role and a name, which can be used from now on for life.
func (k *Keys) Mint(role Role, name string, now time.Time, life time.Duration) ([]byte, error) {
	switch {
	case role != CellAdmin && role != Auditor:
		return nil, fmt.Errorf("there is no admin role %d", role)
	case !validName(name):
		return nil, fmt.Errorf("an admin's name has 1 to %d bytes that can be printed", MaxName)
	case life < time.Second || life > MaxLife-backdate:
		return nil, fmt.Errorf("an admin token lives for one second to %s", MaxLife-backdate)
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 0, MaxSize), k.newest)
	b = append(b, byte(role))
	b = binary.BigEndian.AppendUint64(b, uint64(now.Add(-backdate).Unix())) //nolint:gosec // read back the same way.
	b = binary.BigEndian.AppendUint64(b, uint64(now.Add(life).Unix()))      //nolint:gosec // read back the same way.
	b = append(b, name...)
	nonce := make([]byte, nonceSize)
	rand.Read(nonce) //nolint:errcheck // crypto/rand.Read never fails.
	b = append(b, nonce...)
	return append(b, tag(k.byID[k.newest], b)...), nil
}

func tag(key, body []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(body)
	return m.Sum(nil)
}

// validName takes what a log can show.
func validName(name string) bool {
	return name != "" && len(name) <= MaxName && utf8.ValidString(name) && strings.IndexFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// Verify returns what a token says, if it is this cell's and valid at now: ErrInvalid, ErrExpired, ErrNotYet. Claims come
// with the latter two as well.
func (k *Keys) Verify(token []byte, now time.Time) (Claims, error) {
	if len(token) <= nameAt+tail || len(token) > MaxSize {
		return Claims{}, ErrInvalid
	}
	key, ok := k.byID[binary.BigEndian.Uint32(token)]
	body, mac := token[:len(token)-sha256.Size], token[len(token)-sha256.Size:]
	if !ok || !hmac.Equal(tag(key, body), mac) {
		return Claims{}, ErrInvalid
	}
	c := Claims{Role(token[4]), string(token[nameAt : len(token)-tail]),
		time.Unix(int64(binary.BigEndian.Uint64(token[5:])), 0), time.Unix(int64(binary.BigEndian.Uint64(token[13:])), 0)} //nolint:gosec // as it was written.
	switch {
	case c.Role != CellAdmin && c.Role != Auditor, !validName(c.Name), c.Expires.Sub(c.NotBefore) > MaxLife:
		return Claims{}, ErrInvalid // Signed by a release that knew more, or less.
	case !now.Before(c.Expires):
		return c, ErrExpired
	case now.Before(c.NotBefore):
		return c, ErrNotYet
	}
	return c, nil
}

// Fresh reports whether a token is worth keeping: valid, of that role and name, made with the newest key, and with at least
// half its life ahead.
func (k *Keys) Fresh(token []byte, role Role, name string, now time.Time) bool {
	c, err := k.Verify(token, now)
	return err == nil && c.Role == role && c.Name == name && binary.BigEndian.Uint32(token) == k.newest &&
		now.Before(Renewal(c))
}

// Renewal is when half of a token's life is over.
func Renewal(c Claims) time.Time { return c.NotBefore.Add(c.Expires.Sub(c.NotBefore) / 2) }

// Format is a token as text: a secret.
func Format(token []byte) string { return Prefix + base64.RawURLEncoding.EncodeToString(token) }

// Parse reads Format's text, with blanks around it. The error never quotes it.
func Parse(text string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(strings.TrimSpace(text), Prefix)
	if !ok {
		return nil, fmt.Errorf("this is not an admin token, which begins with %s", Prefix)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(encoded) // It passes over line ends.
	if err != nil || strings.ContainsAny(encoded, "\r\n") || len(b) <= nameAt+tail || len(b) > MaxSize {
		return nil, errors.New("the admin token is damaged or cut off; take it anew")
	}
	return b, nil
}
