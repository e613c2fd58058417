package codes

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func draw(t *rapid.T) (Code, Kind) {
	return Code(rapid.SliceOfN(rapid.Byte(), Size, Size).Draw(t, "code")), rapid.SampledFrom([]Kind{Invitation, Recovery, Reset}).Draw(t, "kind")
}

var shape = regexp.MustCompile(`^([0-9A-HJKMNP-TV-Z]{4}-){6}[0-9A-HJKMNP-TV-Z]{4}$`)

func TestACodeSurvivesBeingCopied(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c, k := draw(t)
		text := c.Format(k)
		if !shape.MatchString(text) {
			t.Fatalf("%q", text)
		}
		for _, copied := range []string{text, strings.ToLower(text), strings.ReplaceAll(text, "-", ""), " " + strings.ReplaceAll(text, "-", " ") + " ",
			strings.NewReplacer("0", "O", "1", "l").Replace(text), strings.ReplaceAll(text, "1", "I")} {
			if got, err := Parse(k, copied); err != nil || got != c {
				t.Fatalf("%q: %v", copied, err)
			}
		}
	})
}

func TestAnotherKindIsNone(t *testing.T) {
	t.Parallel()
	missed := 0
	const tries = 3000
	for range tries {
		if _, err := Parse(Recovery, New().Format(Invitation)); err == nil {
			missed++
		}
	}
	if missed > 10 { // 1 in 4096 is expected.
		t.Errorf("%d of %d invitations pass for recovery codes", missed, tries)
	}
}

func TestTypingErrorsAreFound(t *testing.T) {
	t.Parallel()
	missed, tries := 0, 0
	for range 30 {
		text := New().Format(Recovery)
		for i := range text {
			for _, wrong := range alphabet {
				if text[i] == '-' || text[i] == byte(wrong) {
					continue
				}
				tries++
				if _, err := Parse(Recovery, text[:i]+string(wrong)+text[i+1:]); err == nil {
					missed++
				}
			}
		}
	}
	if missed*1000 > tries { // 1 in 4096 is expected.
		t.Errorf("%d of %d wrong characters are missed", missed, tries)
	}
	text := New().Format(Recovery)
	for what, bad := range map[string]string{"nothing": "", "one short": text[:len(text)-1], "one more": text + "0", "no character": "U" + text[1:],
		"another script": "А" + text[1:], "not UTF-8": "\xff" + text[1:]} {
		if _, err := Parse(Recovery, bad); !errors.Is(err, ErrNone) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Codes that people wrote down must go on working: these values never change.
func TestCodesVector(t *testing.T) {
	t.Parallel()
	c := Code(bytes.Repeat([]byte{0x5a}, Size))
	k := c.Derive(Recovery)
	for what, x := range map[string][2]string{
		"recovery":   {c.Format(Recovery), "B9D5-MPJT-B9D5-MPJT-B9D5-MPJT-BBME"},
		"invitation": {c.Format(Invitation), "B9D5-MPJT-B9D5-MPJT-B9D5-MPJT-B8CA"},
		"reset":      {c.Format(Reset), "B9D5-MPJT-B9D5-MPJT-B9D5-MPJT-BBKQ"},
		"key":        {hex.EncodeToString(k.Public()), "55949b84fe55ae228b7c2a3711e1323704aec4944f21ba932750f5750f33d9bd"},
		"wrap":       {hex.EncodeToString(k.Wrap), "6b41703b79d441a81bf9b03cbf36e0e3c4e584530bd67dbfc7534b0e31c0d5b2cd0dc507b706fdc4145baf697e71774bd0bd4dbd37aae6ee4fce819eaf64a5e7"},
	} {
		if x[0] != x[1] {
			t.Errorf("%s: %s, captured as %s", what, x[0], x[1])
		}
	}
}

func TestKindsDeriveOtherKeys(t *testing.T) {
	t.Parallel()
	c := New()
	a, b := c.Derive(Recovery), c.Derive(Reset)
	if a.Public().Equal(b.Public()) || bytes.Equal(a.Wrap, b.Wrap) || bytes.Equal(a.Wrap[:32], a.Signing.Seed()) {
		t.Error("a key serves twice")
	}
	if again := c.Derive(Recovery); !again.Public().Equal(a.Public()) || !bytes.Equal(again.Wrap, a.Wrap) {
		t.Error("the same code gives other keys")
	}
}

func TestProofs(t *testing.T) {
	t.Parallel()
	a, b := New().Derive(Recovery), New().Derive(Recovery)
	here, elsewhere := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	proof := a.Prove(here)
	if !Verify(a.Public(), here, proof) {
		t.Error("the right proof is refused")
	}
	for what, x := range map[string]bool{
		"another connection": Verify(a.Public(), elsewhere, proof),
		"another code":       Verify(b.Public(), here, proof),
		"a device's label":   Verify(a.Public(), here, ed25519.Sign(a.Signing, append([]byte("qpq/1 connection proof\x00"), here...))),
		"no key":             Verify(nil, here, proof),
		"no proof":           Verify(a.Public(), here, nil),
	} {
		if x {
			t.Errorf("%s: taken", what)
		}
	}
	a.Clear()
	if !bytes.Equal(a.Wrap, make([]byte, 64)) || !bytes.Equal(a.Signing, make([]byte, ed25519.PrivateKeySize)) {
		t.Error("the keys are not cleared")
	}
}

func FuzzParse(f *testing.F) {
	c := New()
	f.Add(c.Format(Recovery))
	f.Add(strings.ToLower(c.Format(Invitation)))
	f.Add("\xff-oil")
	f.Fuzz(func(t *testing.T, text string) {
		for _, k := range []Kind{Invitation, Recovery, Reset} {
			c, err := Parse(k, text)
			if err != nil {
				continue
			}
			if again, err := Parse(k, c.Format(k)); err != nil || again != c {
				t.Fatalf("%q is read as %x, which is written as %s (%v)", text, c, c.Format(k), err)
			}
		}
	})
}

var linkShape = regexp.MustCompile(`^([0-9A-HJKMNP-TV-Z]{4}-){4}[0-9A-HJKMNP-TV-Z]{4}$`)

func TestALinkSurvivesBeingCopied(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := Link(rapid.SliceOfN(rapid.Byte(), LinkSize, LinkSize).Draw(t, "code"))
		text := c.Format()
		if !linkShape.MatchString(text) {
			t.Fatalf("%q", text)
		}
		for _, copied := range []string{text, strings.ToLower(text), " " + strings.ReplaceAll(text, "-", " "), strings.ReplaceAll(text, "-", ""),
			c.QR(), strings.ToUpper(c.QR()), c.QR() + "\n", strings.NewReplacer("0", "o", "1", "I").Replace(text)} {
			if got, err := ParseLink(copied); err != nil || got != c {
				t.Fatalf("%q: %v", copied, err)
			}
		}
	})
}

// With twenty bits of check, one in a million wrong codes passes.
func TestTypingErrorsOfALinkAreFound(t *testing.T) {
	t.Parallel()
	for range 30 {
		text := NewLink().Format()
		for i := range text {
			for _, wrong := range alphabet {
				if text[i] == '-' || text[i] == byte(wrong) {
					continue
				}
				if got, err := ParseLink(text[:i] + string(wrong) + text[i+1:]); !errors.Is(err, ErrNone) || got != (Link{}) {
					t.Errorf("%s with %c at %d: %v", text, wrong, i, err)
				}
			}
		}
		for i := range len(text) - 1 {
			if swapped := text[:i] + string(text[i+1]) + string(text[i]) + text[i+2:]; swapped != text && !strings.Contains(text[i:i+2], "-") {
				if _, err := ParseLink(swapped); err == nil {
					t.Errorf("%s passes for %s", swapped, text)
				}
			}
		}
	}
	for _, bad := range []string{"", "qpq-link:", "http:" + NewLink().Format(), New().Format(Recovery)} {
		if _, err := ParseLink(bad); !errors.Is(err, ErrNone) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestKeysOfALink(t *testing.T) {
	t.Parallel()
	k := Link(bytes.Repeat([]byte{0x5a}, LinkSize)).Derive()
	if got := Link(bytes.Repeat([]byte{0x5a}, LinkSize)).Format(); got != "B9D5-MPJT-B9D5-MPJT-EEY3" {
		t.Errorf("the code is %s", got)
	}
	for what, x := range map[string][2]string{"id": {hex.EncodeToString(k.ID[:]), "87395d1dfd7c9da7f2e2ff9f786a4429"}, "offer": {hex.EncodeToString(k.Offer), "61ce2b0dbcec5ec8ca39fe53755c230a1994e58f75eed11561c39d508423a86b"}, "approval": {hex.EncodeToString(k.Approval), "91e857c68a91a51e33199550959f810923f6b54bbada958fdce77e9b05cd5a34"}} {
		if x[0] != x[1] {
			t.Errorf("%s: %s", what, x[0])
		}
	}
	k.Clear()
	if !bytes.Equal(k.Offer, make([]byte, 32)) || !bytes.Equal(k.Approval, make([]byte, 32)) {
		t.Error("something is left")
	}
}
