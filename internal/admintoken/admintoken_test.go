package admintoken

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/internal/cellkeys"
)

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// key is a cell's token key; equal seeds are equal keys.
func key(id uint32, seed byte) cellkeys.Key {
	return cellkeys.Key{ID: id, Key: bytes.Repeat([]byte{seed}, 32)}
}

func makeKeys(t testing.TB, tokens ...cellkeys.Key) *Keys {
	t.Helper()
	k, err := New(tokens)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mint(t testing.TB, k *Keys, role Role, name string) []byte {
	t.Helper()
	b, err := k.Mint(role, name, epoch, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestATokenSaysWhatItWasMintedFor(t *testing.T) {
	t.Parallel()
	k := makeKeys(t, key(3, 1))
	for _, name := range []string{"a", "operator", "José Ops", strings.Repeat("x", MaxName)} {
		for _, role := range []Role{CellAdmin, Auditor} {
			token := mint(t, k, role, name)
			c, err := k.Verify(token, epoch)
			if err != nil || c.Role != role || c.Name != name || !c.Expires.Equal(epoch.Add(time.Hour)) || !c.NotBefore.Equal(epoch.Add(-time.Minute)) {
				t.Errorf("%q: %+v, %v", name, c, err)
			}
			back, err := Parse("\n" + Format(token) + " \n")
			if err != nil || !bytes.Equal(back, token) {
				t.Errorf("%q: %x, %v", name, back, err)
			}
		}
	}
	if bytes.Equal(mint(t, k, Auditor, "a"), mint(t, k, Auditor, "a")) {
		t.Error("two tokens are equal")
	}
}

func TestMintRefuses(t *testing.T) {
	t.Parallel()
	k := makeKeys(t, key(1, 1))
	for what, x := range map[string]struct {
		role Role
		name string
		life time.Duration
	}{
		"no role": {0, "a", time.Hour}, "a role there is not": {3, "a", time.Hour}, "no name": {Auditor, "", time.Hour},
		"a long name": {Auditor, strings.Repeat("x", MaxName+1), time.Hour}, "a line end": {Auditor, "a\nb", time.Hour},
		"an unseen character": {Auditor, "a\u200b", time.Hour}, "no UTF-8": {Auditor, "\xff", time.Hour},
		"no life": {Auditor, "a", 0}, "past its end": {Auditor, "a", -time.Hour}, "too long": {Auditor, "a", MaxLife},
	} {
		if b, err := k.Mint(x.role, x.name, epoch, x.life); err == nil {
			t.Errorf("%s: %x", what, b)
		}
	}
	if _, err := New(nil); err == nil {
		t.Error("keys of nothing")
	}
}

func TestItsTime(t *testing.T) {
	t.Parallel()
	k := makeKeys(t, key(1, 1))
	token := mint(t, k, Auditor, "a")
	for at, want := range map[time.Duration]error{
		-time.Minute - time.Second: ErrNotYet, -time.Minute: nil, 0: nil, time.Hour - time.Second: nil,
		time.Hour: ErrExpired, 100 * 365 * 24 * time.Hour: ErrExpired,
	} {
		c, err := k.Verify(token, epoch.Add(at))
		if !errors.Is(err, want) || c.Name != "a" {
			t.Errorf("at %s: %+v, %v, want %v", at, c, err, want)
		}
	}
}

func TestNoByteCanBeChanged(t *testing.T) {
	t.Parallel()
	k := makeKeys(t, key(1, 1), key(2, 2))
	token := mint(t, k, Auditor, "auditor")
	for i := range token {
		for bit := range 8 {
			changed := bytes.Clone(token)
			changed[i] ^= 1 << bit
			if c, err := k.Verify(changed, epoch); !errors.Is(err, ErrInvalid) || c != (Claims{}) {
				t.Fatalf("byte %d, bit %d: %+v, %v", i, bit, c, err)
			}
		}
	}
	for n := range len(token) {
		if _, err := k.Verify(token[:n], epoch); !errors.Is(err, ErrInvalid) {
			t.Fatalf("the first %d bytes: %v", n, err)
		}
	}
	for _, longer := range [][]byte{append(bytes.Clone(token), 0), append([]byte{0}, token...), make([]byte, MaxSize), make([]byte, MaxSize+1), make([]byte, 1<<20)} {
		if _, err := k.Verify(longer, epoch); !errors.Is(err, ErrInvalid) {
			t.Fatalf("%d bytes: %v", len(longer), err)
		}
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	old, other, rotated, gone := makeKeys(t, key(1, 1)), makeKeys(t, key(1, 9)), makeKeys(t, key(2, 2), key(1, 1)), makeKeys(t, key(2, 2))
	first, second := mint(t, old, CellAdmin, "a"), mint(t, rotated, CellAdmin, "a")
	for what, x := range map[string]struct {
		keys  *Keys
		token []byte
		want  error
	}{
		"another cell's key of the same id":   {other, first, ErrInvalid},
		"after a rotation, of before":         {rotated, first, nil},
		"after a rotation, of after":          {rotated, second, nil},
		"before a rotation, of after":         {old, second, ErrInvalid},
		"when the old key is gone, of before": {gone, first, ErrInvalid},
		"when the old key is gone, of after":  {gone, second, nil},
	} {
		if _, err := x.keys.Verify(x.token, epoch); !errors.Is(err, x.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if !old.Fresh(first, CellAdmin, "a", epoch) || rotated.Fresh(first, CellAdmin, "a", epoch) || !rotated.Fresh(second, CellAdmin, "a", epoch) {
		t.Error("a token of a rotated key is to be minted anew, and no other")
	}
}

func TestFresh(t *testing.T) {
	t.Parallel()
	k := makeKeys(t, key(1, 1))
	token := mint(t, k, CellAdmin, "a")
	half := 29*time.Minute + 30*time.Second
	for what, got := range map[string]bool{
		"at once": k.Fresh(token, CellAdmin, "a", epoch), "before half": k.Fresh(token, CellAdmin, "a", epoch.Add(half-time.Second)),
		"!at half": k.Fresh(token, CellAdmin, "a", epoch.Add(half)), "!another role": k.Fresh(token, Auditor, "a", epoch),
		"!another name": k.Fresh(token, CellAdmin, "b", epoch), "!none": k.Fresh(nil, CellAdmin, "a", epoch),
	} {
		if got == strings.HasPrefix(what, "!") {
			t.Errorf("%s: %v", what, got)
		}
	}
	c, err := k.Verify(token, epoch)
	if err != nil || !Renewal(c).Equal(epoch.Add(half)) {
		t.Errorf("%v, %v", Renewal(c), err)
	}
}

// A tag over what a minter of ours would not write does not make it a token: the check is the cell's own.
func TestSignedNonsense(t *testing.T) {
	t.Parallel()
	k := makeKeys(t, key(1, 1))
	sign := func(change func(b []byte) []byte) []byte {
		token := mint(t, k, CellAdmin, "ab")
		body := change(token[:len(token)-32])
		return append(body, tag(k.byID[1], body)...)
	}
	for what, token := range map[string][]byte{
		"no role":      sign(func(b []byte) []byte { b[4] = 0; return b }),
		"unknown role": sign(func(b []byte) []byte { b[4] = 7; return b }),
		"no name":      sign(func(b []byte) []byte { return append(b[:nameAt], b[nameAt+2:]...) }),
		"unseen name":  sign(func(b []byte) []byte { b[nameAt] = 7; return b }),
		"lives too long": sign(func(b []byte) []byte {
			binary.BigEndian.PutUint64(b[13:], uint64(epoch.Add(25*time.Hour).Unix()))
			return b
		}),
		"never ends":     sign(func(b []byte) []byte { binary.BigEndian.PutUint64(b[13:], 1<<62); return b }),
		"runs backwards": sign(func(b []byte) []byte { binary.BigEndian.PutUint64(b[13:], 0); return b }),
	} {
		if c, err := k.Verify(token, epoch); err == nil {
			t.Errorf("%s: %+v", what, c)
		}
	}
}

// A session's token and an admin's are made with the same key of the file, and neither is the other.
func TestOfTheSameKeyButForSomethingElse(t *testing.T) {
	t.Parallel()
	k := makeKeys(t, key(1, 1))
	body := mint(t, k, CellAdmin, "a")
	body = body[:len(body)-32]
	if _, err := k.Verify(append(body, tag(key(1, 1).Key, body)...), epoch); !errors.Is(err, ErrInvalid) {
		t.Errorf("a tag by the token key itself: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	text := Format(mint(t, makeKeys(t, key(1, 1)), CellAdmin, "a"))
	for _, bad := range []string{"", "hunter2", strings.TrimPrefix(text, Prefix), Prefix, text[:40], text + "=", text + "!", text + strings.Repeat("A", 200), strings.ToUpper(text)} {
		_, err := Parse(bad)
		if err == nil || bad != "" && strings.Contains(err.Error(), bad) && bad != Prefix {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	k := makeKeys(f, key(1, 1), key(7, 2))
	f.Add(mint(f, k, CellAdmin, "a"))
	f.Add(mint(f, k, Auditor, strings.Repeat("x", MaxName)))
	f.Add([]byte{0, 0, 0, 7})
	f.Fuzz(func(t *testing.T, token []byte) {
		c, err := k.Verify(token, epoch)
		if err != nil {
			return
		}
		body := token[:len(token)-32]
		if !bytes.Equal(tag(k.byID[binary.BigEndian.Uint32(token)], body), token[len(token)-32:]) {
			t.Fatalf("taken without its tag: %+v", c)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(Format(mint(f, makeKeys(f, key(1, 1)), CellAdmin, "a")))
	f.Add(Prefix)
	f.Fuzz(func(t *testing.T, text string) {
		b, err := Parse(text)
		if err == nil && Format(b) != strings.TrimSpace(text) {
			t.Errorf("%q is %q", text, Format(b))
		}
	})
}
