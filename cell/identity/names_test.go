package identity

import (
	"context"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
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

func TestNewNamesMixNoScripts(t *testing.T) {
	t.Parallel()
	for what, name := range map[string]string{
		"one Cyrillic letter":      "аlice",
		"one Greek letter":         "αlice",
		"one Latin letter":         "дмитрийx",
		"Greek and Cyrillic":       "γд",
		"Armenian in Latin":        "bօb",
		"Japanese and Cyrillic":    "田中д",
		"Hangul and kana":          "한かな",
		"two kinds of digits":      "a1٢",
		"Arabic, two kinds":        "ع١۲",
		"marks heaped up":          "a\u0301\u0301\u0301\u0301b",
		"a script of the past":     "𐌰𐌱𐌲",
		"Cherokee":                 "ᏣᎳᎩ",
		"Deseret":                  "𐐨𐐩",
		"phonetic letters":         "ɑlice",
		"a small capital":          "ᴀlice",
		"a click":                  "ǃxoo",
		"a modifier letter":        "aʰ",
		"Lisu, like Latin capital": "ꓐꓳꓐ",
	} {
		if got, err := newName(name); !wire.HasCode(err, wire.CodeInvalidArgument) {
			t.Errorf("%s: %q is taken as %q (%v)", what, name, got, err)
		}
	}
}

func TestNewNamesOfOneWriting(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"alice", "Zoë", "o'neil", "jean-luc.picard_42", "дмитрий", "Μαρία", "田中太郎", "たなかtaro", "タナカ", "김철수", "김kim", "陳ㄔㄣ",
		"אברהם", "محمد", "अजय", "தமிழ்", "สมชาย", "გიორგი", "արամ", "አበበ", "Nguyễn", "ßeta", "çağrı", "łukasz", "əli", "user123", "ع١٢٣"} {
		if got, err := newName(name); err != nil {
			t.Errorf("%q is refused: %v", name, err)
		} else if again, err := newName(got); err != nil || again != got {
			t.Errorf("%q became %q, and that %q (%v)", name, got, again, err)
		}
	}
}

func TestSkeletonsOfLookalikes(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		a, b  string
		alike bool
	}{
		{"paypal", "paypa1", true}, {"paypal", "раураӏ", true}, {"google", "g00gle", true}, {"modern", "rnodern", true}, {"vvolf", "wolf", true},
		{"alice", "aиice", false}, {"scope", "ѕсоре", true}, {"ooo", "οοο", true}, {"ooo", "ооо", true}, {"ооо", "οοο", true}, {"øre", "ore", true},
		{"kot", "кот", true}, {"bob", "ЬоЬ", true},
		{"alice", "alicf", false}, {"zoe", "zoë", false}, {"a.b", "ab", false}, {"a-b", "a_b", false}, {"lena", "лена", false}, {"user2", "user3", false},
		{"田中", "田申", false}, {"anna", "anne", false},
	} {
		a, err1 := prepareName(x.a)
		b, err2 := prepareName(x.b)
		if err1 != nil || err2 != nil {
			t.Fatalf("%s, %s: %v, %v", x.a, x.b, err1, err2)
		}
		if (skeleton(a) == skeleton(b)) != x.alike {
			t.Errorf("%q looks like %q, %q like %q; alike: want %t", x.a, skeleton(a), x.b, skeleton(b), x.alike)
		}
	}
	for r, like := range lookalikes {
		if string(r) == like {
			t.Errorf("%q is mapped to itself", r)
		}
		for _, l := range like {
			if further, ok := lookalikes[l]; ok && l != r {
				t.Errorf("%q looks like %q, which looks like %q: map it to that", r, like, further)
			}
		}
	}
}

// The skeleton of a skeleton is itself: which of two names came first makes no difference.
func TestSkeletonsAreStable(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringOfN(rapid.OneOf(rapid.RuneFrom([]rune("0o1lmrnwvоеасрхуіӏοανρéёø.-_")), rapid.Rune()), 1, 12, 64).Draw(t, "name")
		prepared, err := prepareName(name)
		if err != nil {
			return
		}
		once := skeleton(prepared)
		if twice := skeleton(once); once == "" || twice != once {
			t.Fatalf("%q has the skeleton %q, which has %q", prepared, once, twice)
		}
	})
}

func TestLookalikesOfTakenNamesAreRefused(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	_, err := f.signup(t.Context(), newPerson("scope"))
	must(t, err)
	for _, name := range []string{"sc0pe", "ѕсоре", "SCOPE"} {
		if _, err := f.signup(t.Context(), newPerson(name)); !wire.HasCode(err, wire.CodeAlreadyExists) {
			t.Errorf("%s beside scope: %v", name, err)
		}
	}
	// Accounts from before this rule keep their names, and go on logging in; what they look like is taken from then on.
	old := newPerson("microsoft")
	_, err = f.signup(t.Context(), old)
	must(t, err)
	must(t, f.forgetSkeletons(t))
	if _, err := f.signup(t.Context(), newPerson("rnicrosoft")); err != nil {
		t.Fatal("the test's own premise:", err)
	}
	must(t, f.forgetSkeletons(t))
	f.login(t, old)
	f.login(t, &person{name: "rnicrosoft", cert: f.certOf(t, "rnicrosoft")}) // Second, and has none; but logs in.
	if _, err := f.signup(t.Context(), newPerson("m1crosoft")); err != nil {
		t.Errorf("no look-alike: %v", err)
	}
	if _, err := f.signup(t.Context(), newPerson("micros0ft")); !wire.HasCode(err, wire.CodeAlreadyExists) {
		t.Errorf("a look-alike of one that logged in: %v", err)
	}
}

// forgetSkeletons makes all accounts as old as if there had been none.
func (f *fixture) forgetSkeletons(t *testing.T) error {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), f.uri)
	must(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	_, err = conn.Exec(t.Context(), `UPDATE accounts SET skeleton_index = NULL`)
	return err
}
