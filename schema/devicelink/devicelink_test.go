package devicelink

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

var (
	keys  = keysOf(0x5a)
	other = keysOf(0x5b)
)

func keysOf(fill byte) *codes.LinkKeys {
	k := codes.Link(bytes.Repeat([]byte{fill}, codes.LinkSize)).Derive()
	return &k
}

func makeOffer(t testing.TB, name string) (*Offer, *Exchange) {
	t.Helper()
	x, err := NewExchange()
	if err != nil {
		t.Fatal(err)
	}
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &Offer{DeviceID: ids.New(), DeviceKey: public, ExchangeKey: x.Public(), Name: name}, x
}

func makeApproval(contacts int) *Approval {
	a := &Approval{AccountID: ids.New(), RootKey: bytes.Repeat([]byte{3}, 32), Name: "alice"}
	for i := range contacts {
		a.Contacts = append(a.Contacts, Contact{ids.New(), bytes.Repeat([]byte{byte(i)}, 32), fmt.Sprint("contact", i)})
	}
	return a
}

func same(a, b *Approval) bool {
	return a.AccountID == b.AccountID && a.RootKey.Equal(b.RootKey) && a.Name == b.Name && slices.EqualFunc(a.Contacts, b.Contacts, func(a, b Contact) bool {
		return a.AccountID == b.AccountID && a.RootKey.Equal(b.RootKey) && a.Name == b.Name
	})
}

func TestOffers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		o, _ := makeOffer(t, rapid.StringN(0, 32, MaxName).Draw(rt, "name"))
		b := o.Seal(keys)
		for _, open := range []func() (*Offer, error){func() (*Offer, error) { return OpenOffer(b, keys) }, func() (*Offer, error) { return ParseOffer(b) }} {
			got, err := open()
			if err != nil || got.DeviceID != o.DeviceID || !got.DeviceKey.Equal(o.DeviceKey) || !bytes.Equal(got.ExchangeKey, o.ExchangeKey) || got.Name != o.Name {
				rt.Fatalf("%+v, %v", got, err)
			}
		}
		if len(b) > wire.MaxLinkOffer {
			rt.Errorf("%d bytes", len(b))
		}
	})
}

func refused(err error) bool { return errors.Is(err, ErrForged) || errors.Is(err, ErrInvalid) }

// Who has not the code cannot change, shorten or make an offer: the key of a new device least of all.
func TestAnOfferCannotBeExchanged(t *testing.T) {
	t.Parallel()
	o, _ := makeOffer(t, "tablet")
	b := o.Seal(keys)
	if _, err := OpenOffer(b, other); !errors.Is(err, ErrForged) {
		t.Errorf("under another code: %v", err)
	}
	elsewhere := *keys
	elsewhere.ID = ids.New()
	if _, err := OpenOffer(b, &elsewhere); !errors.Is(err, ErrForged) {
		t.Errorf("under another link: %v", err)
	}
	for i := range b {
		for _, bit := range []byte{1, 0x80} {
			changed := bytes.Clone(b)
			changed[i] ^= bit
			if got, err := OpenOffer(changed, keys); !refused(err) {
				t.Errorf("byte %d: %+v, %v", i, got, err)
			}
		}
		if _, err := OpenOffer(b[:i], keys); !refused(err) {
			t.Errorf("%d bytes: %v", i, err)
		}
	}
	if _, err := OpenOffer(append(bytes.Clone(b), 0), keys); !refused(err) {
		t.Errorf("one more: %v", err)
	}
	none := *o
	none.DeviceID = ids.ID{}
	if _, err := OpenOffer(none.Seal(keys), keys); !errors.Is(err, ErrInvalid) {
		t.Errorf("without an id: %v", err)
	}
	none = *o
	none.Name = "\xff"
	if _, err := OpenOffer(none.Seal(keys), keys); !errors.Is(err, ErrInvalid) {
		t.Errorf("no UTF-8: %v", err)
	}
}

func TestApprovals(t *testing.T) {
	t.Parallel()
	o, x := makeOffer(t, "tablet")
	offer := o.Seal(keys)
	for contacts, size := range map[int]int{0: 4096, 1: 4096, 60: 4096, 70: 8192, 1000: MaxContent} {
		a := makeApproval(contacts)
		b, err := a.Seal(offer, keys)
		if err != nil {
			t.Fatal(err)
		}
		got, err := x.Open(b, offer, keys)
		if err != nil {
			t.Fatal(err)
		}
		room := *a
		room.Contacts = a.Contacts[:len(got.Contacts)]
		if !same(got, &room) || contacts < 100 && len(got.Contacts) != contacts || contacts >= 100 && len(got.Contacts) < 200 {
			t.Errorf("%d contacts become %d", contacts, len(got.Contacts))
		}
		if len(b) != approvalFixed+size+tagSize || len(b) > wire.MaxLinkApproval {
			t.Errorf("%d contacts: %d bytes", contacts, len(b))
		}
	}
	for what, bad := range map[string]*Approval{"a name": {Name: strings.Repeat("x", maxText+1), RootKey: make([]byte, 32)}, "a contact's": {RootKey: make([]byte, 32),
		Contacts: []Contact{{RootKey: make([]byte, 32), Name: strings.Repeat("x", maxText+1)}}}, "a short key": {Name: "x"},
		"a contact's short key": {RootKey: make([]byte, 32), Contacts: []Contact{{Name: "x"}}}} {
		if _, err := bad.Seal(offer, keys); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestAnApprovalCannotBeExchanged(t *testing.T) {
	t.Parallel()
	o, x := makeOffer(t, "tablet")
	offer := o.Seal(keys)
	a := makeApproval(2)
	b, err := a.Seal(offer, keys)
	if err != nil {
		t.Fatal(err)
	}
	another, y := makeOffer(t, "tablet")
	if _, err := a.Seal(offer, other); !errors.Is(err, ErrForged) {
		t.Errorf("an approval under another code: %v", err)
	}
	for what, open := range map[string]func() (*Approval, error){
		"by another device":  func() (*Approval, error) { return y.Open(b, offer, keys) },
		"of another offer":   func() (*Approval, error) { return x.Open(b, another.Seal(keys), keys) },
		"under another code": func() (*Approval, error) { return x.Open(b, offer, other) },
		"by who knows the id only": func() (*Approval, error) {
			return x.Open(b, offer, &codes.LinkKeys{ID: keys.ID, Offer: keys.Offer, Approval: make([]byte, 32)})
		},
		"of another link": func() (*Approval, error) {
			return x.Open(b, offer, &codes.LinkKeys{ID: other.ID, Offer: keys.Offer, Approval: keys.Approval})
		},
	} {
		if _, err := open(); !errors.Is(err, ErrForged) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := 0; i < len(b); i += 1 + len(b)/300 {
		changed := bytes.Clone(b)
		changed[i] ^= 1
		if got, err := x.Open(changed, offer, keys); !refused(err) {
			t.Errorf("byte %d: %+v, %v", i, got, err)
		}
		if _, err := x.Open(b[:i], offer, keys); !refused(err) {
			t.Errorf("%d bytes: %v", i, err)
		}
	}
	// A point of low order would make the exchange's secret one that everybody knows (RFC 7748 §6.1).
	o.ExchangeKey = make([]byte, 32)
	if _, err := a.Seal(o.Seal(keys), keys); !errors.Is(err, ErrInvalid) {
		t.Errorf("an exchange key of low order: %v", err)
	}
	low := bytes.Clone(b)
	clear(low[1:approvalFixed])
	if _, err := x.Open(low, offer, keys); !errors.Is(err, ErrInvalid) {
		t.Errorf("an approval by a key of low order: %v", err)
	}
}

func FuzzParseOffer(f *testing.F) {
	o, _ := makeOffer(f, "tablet")
	f.Add(o.Seal(keys))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ParseOffer(b)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if sealed := got.Seal(keys); !bytes.Equal(sealed[:len(sealed)-32], b[:len(b)-32]) {
			t.Fatalf("%x becomes %x", b, sealed)
		}
	})
}

func FuzzParseContent(f *testing.F) {
	for _, n := range []int{0, 3} {
		b, err := makeApproval(n).content()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:60])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseContent(b)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if len(a.Contacts)*(ids.Size+ed25519.PublicKeySize+2) > len(b) {
			t.Fatalf("%d contacts of %d bytes", len(a.Contacts), len(b))
		}
	})
}
