package identity

import (
	"bytes"
	"crypto/ed25519"
	"testing"
	"time"

	"pgregory.net/rapid"

	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

func drawID(t *rapid.T, label string) ids.ID {
	return ids.ID(rapid.SliceOfN(rapid.Byte(), ids.Size, ids.Size).Draw(t, label))
}

func drawPrincipal(t *rapid.T) Principal {
	return Principal{AccountID: drawID(t, "account"), DeviceID: drawID(t, "device"), SessionID: drawID(t, "session"),
		DeviceKey: ed25519.PublicKey(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key")),
		ExpiresAt: time.UnixMilli(rapid.Int64Range(1, 1<<43).Draw(t, "expiry"))}
}

func key(id uint32, b byte) cellkeys.Key {
	return cellkeys.Key{ID: id, Key: bytes.Repeat([]byte{b}, 32)}
}

func TestTokensSayWhatTheyWereMadeOf(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := drawPrincipal(t)
		old, rotated := tokens{[]cellkeys.Key{key(1, 1)}}, tokens{[]cellkeys.Key{key(2, 2), key(1, 1)}}
		token := old.issue(p)
		if len(token) > wire.MaxToken {
			t.Fatalf("%d bytes", len(token))
		}
		for _, by := range []tokens{old, rotated} {
			got, err := by.check(token, p.ExpiresAt.Add(-time.Millisecond))
			if err != nil || got.AccountID != p.AccountID || got.DeviceID != p.DeviceID || got.SessionID != p.SessionID ||
				!got.DeviceKey.Equal(p.DeviceKey) || !got.ExpiresAt.Equal(p.ExpiresAt) {
				t.Fatalf("%+v, %v", got, err)
			}
		}
		if _, err := old.check(token, p.ExpiresAt); !wire.HasCode(err, wire.CodeExpiredToken) {
			t.Fatalf("at its end: %v", err)
		}
		for name, other := range map[string]tokens{"another key": {[]cellkeys.Key{key(1, 9)}}, "a key dropped": {[]cellkeys.Key{key(2, 2)}}} {
			if _, err := other.check(token, p.ExpiresAt.Add(-time.Millisecond)); !wire.HasCode(err, wire.CodeInvalidToken) {
				t.Fatalf("%s: %v", name, err)
			}
		}
	})
}

func TestChangedTokensAreRefused(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		issuer := tokens{[]cellkeys.Key{key(1, 1), key(2, 2)}}
		p := drawPrincipal(t)
		token := issuer.issue(p)
		bad := bytes.Clone(token)
		switch rapid.IntRange(0, 3).Draw(t, "how") {
		case 0:
			i := rapid.IntRange(0, len(bad)-1).Draw(t, "at")
			bad[i] ^= byte(rapid.IntRange(1, 255).Draw(t, "xor"))
		case 1:
			bad = bad[:rapid.IntRange(0, len(bad)-1).Draw(t, "cut")]
		case 2:
			bad = append(bad, rapid.Byte().Draw(t, "more"))
		case 3:
			bad = rapid.SliceOfN(rapid.Byte(), 0, 2*accessSize).Draw(t, "made up")
		}
		if _, err := issuer.check(bad, p.ExpiresAt.Add(-time.Millisecond)); !wire.HasCode(err, wire.CodeInvalidToken) {
			t.Fatalf("taken: %v", err)
		}
	})
}

func TestRefreshTokensAreTheirSessionsAndUnlike(t *testing.T) {
	t.Parallel()
	id := ids.New()
	a, b := newRefreshToken(id), newRefreshToken(id)
	if len(a) != refreshSize || !bytes.Equal(a[:ids.Size], id[:]) || bytes.Equal(a, b) || bytes.Equal(hashRefresh(a), hashRefresh(b)) {
		t.Errorf("%x, %x", a, b)
	}
}
