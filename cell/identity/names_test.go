package identity

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"quicproquo.dev/schema/wire"
)

func TestNamesThatAreTheSame(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ what, a, b string }{
		{"case", "Alice", "aLICE"},
		{"full width", "ＡＬＩＣＥ", "alice"},
		{"composed and decomposed", "Zoe\u0308", "zoë"},
		{"case beyond ASCII", "ΜΑΡΊΑ", "μαρία"},
	} {
		a, err1 := prepareName(x.a)
		b, err2 := prepareName(x.b)
		if err1 != nil || err2 != nil || a != b {
			t.Errorf("%s: %q (%v) and %q (%v)", x.what, a, err1, b, err2)
		}
	}
}

func TestNamesThatDiffer(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ what, a, b string }{
		{"another letter", "alice", "alicf"},
		{"a dot", "a.lice", "alice"},
		{"a look-alike of another script", "аlice", "alice"}, // The first begins with a Cyrillic letter: the profile tells them apart, people may not.
		{"an accent", "zoe", "zoë"},
	} {
		a, err1 := prepareName(x.a)
		b, err2 := prepareName(x.b)
		if err1 != nil || err2 != nil || a == b {
			t.Errorf("%s: %q (%v) and %q (%v)", x.what, a, err1, b, err2)
		}
	}
}

func TestNamesThatAreNone(t *testing.T) {
	t.Parallel()
	for what, name := range map[string]string{
		"nothing":              "",
		"a space":              "a b",
		"spaces around":        " alice ",
		"a no-break space":     "a\u00a0b",
		"a control character":  "a\x00b",
		"a newline":            "alice\n",
		"right-to-left mark":   "\u202ealice",
		"zero-width joiner":    "al\u200dice",
		"zero-width space":     "al\u200bice",
		"a ligature":           "ﬁnn",
		"an emoji":             "🙂",
		"too long":             strings.Repeat("x", maxNameRunes+1),
		"too long and wide":    strings.Repeat("𝒳", maxNameRunes+1),
		"not UTF-8":            "a\xffb",
		"both directions":      "aliceא",
		"private use":          "\ue000",
		"unassigned":           "\u0378",
		"a byte order mark":    "\ufeffalice",
		"a roman number sign":  "Ⅳ",
		"a tag character":      "a\U000e0041",
		"a variation selector": "a\ufe0f",
	} {
		got, err := prepareName(name)
		if !wire.HasCode(err, wire.CodeInvalidArgument) {
			t.Errorf("%s: taken as %q (%v)", what, got, err)
		}
	}
	if got, err := prepareName(strings.Repeat("É", maxNameRunes)); err != nil || utf8.RuneCountInString(got) != maxNameRunes {
		t.Errorf("the longest: %q, %v", got, err)
	}
}

// A prepared name is what is looked up, so preparing it again must change nothing, and case must not matter.
func TestPreparingIsStable(t *testing.T) {
	t.Parallel()
	runes := rapid.OneOf(
		rapid.RuneFrom([]rune("aAzZ09.-_ßẞıİſKΣςσéÉe\u0301ＡａΐФф\u0130\u1e9e中文अ\u0345")),
		rapid.Rune(),
	)
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringOfN(runes, 1, 20, 256).Draw(t, "name")
		once, err := prepareName(name)
		if err != nil {
			return
		}
		twice, err := prepareName(once)
		if err != nil || twice != once {
			t.Fatalf("%q is prepared as %q, and that as %q (%v)", name, once, twice, err)
		}
		if n := utf8.RuneCountInString(once); n == 0 || n > maxNameRunes || len(once) > wire.MaxName {
			t.Fatalf("%q has %d code points in %d bytes", once, n, len(once))
		}
	})
}
