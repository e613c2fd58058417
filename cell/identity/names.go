package identity

import (
	"context"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/wire"
)

const maxNameRunes = 64

// prepareName applies the UsernameCaseMapped profile (RFC 8265 §3.3), so that names which look the same to the
// profile are the same. It is how names are compared, also those that newName would not take any more.
func prepareName(name string) (string, error) {
	prepared, err := precis.UsernameCaseMapped.String(name)
	if err != nil || prepared == "" || utf8.RuneCountInString(prepared) > maxNameRunes {
		return "", errName("take 1 to %d letters, digits or punctuation, without spaces (RFC 8265)", maxNameRunes)
	}
	return prepared, nil
}

func errName(format string, args ...any) *wire.Error {
	return wire.Errorf(wire.CodeInvalidArgument, "that is no account name: "+format, args...).With("field", "name")
}

// newName prepares the name of a new account, and refuses what could pass for another name: letters of several scripts
// (UTS #39 §5.2, "highly restrictive"), digits of several, marks heaped on one letter, and scripts and letters that are
// not in everyday use (UAX #31, table 5). Names within one script that look alike are told apart by their skeleton.
func newName(name string) (string, error) {
	prepared, err := prepareName(name)
	if err != nil {
		return "", err
	}
	var scripts scriptSet
	var digits, marks rune
	for _, r := range prepared {
		script := scriptOf(r)
		if script == "" || unicode.Is(phonetic, r) {
			return "", errName("%q is of a script that is not taken here", r)
		}
		scripts.add(script)
		if unicode.Is(unicode.Mn, r) {
			marks++
		} else {
			marks = 0
		}
		if marks > 2 {
			return "", errName("it has more than two marks on one letter")
		}
		if unicode.IsDigit(r) {
			if digits != 0 && digits != digitBlock(r) {
				return "", errName("it mixes the digits of several scripts")
			}
			digits = digitBlock(r)
		}
	}
	if !scripts.oneWriting() {
		return "", errName("it mixes letters of several scripts")
	}
	return prepared, nil
}

// everyday are the scripts in everyday use (UAX #31, table 5).
var everyday = []string{"Common", "Inherited", "Latin", "Cyrillic", "Greek", "Han", "Hiragana", "Katakana", "Hangul", "Bopomofo", "Arabic", "Armenian", "Bengali",
	"Devanagari", "Ethiopic", "Georgian", "Gujarati", "Gurmukhi", "Hebrew", "Kannada", "Khmer", "Lao", "Malayalam", "Myanmar", "Oriya", "Sinhala",
	"Tamil", "Telugu", "Thaana", "Thai", "Tibetan"}

// phonetic are letters of these scripts that write sounds, not words, and look like others.
var phonetic = &unicode.RangeTable{R16: []unicode.Range16{
	{Lo: 0x0180, Hi: 0x0180, Stride: 1}, {Lo: 0x01c0, Hi: 0x01c3, Stride: 1}, {Lo: 0x0221, Hi: 0x0221, Stride: 1}, {Lo: 0x0234, Hi: 0x0239, Stride: 1},
	{Lo: 0x0250, Hi: 0x0258, Stride: 1}, {Lo: 0x025a, Hi: 0x02af, Stride: 1}, {Lo: 0x02b0, Hi: 0x02ff, Stride: 1}, {Lo: 0x1d00, Hi: 0x1dbf, Stride: 1},
	{Lo: 0x2c60, Hi: 0x2c7f, Stride: 1}, {Lo: 0xa720, Hi: 0xa7ff, Stride: 1}, {Lo: 0xab30, Hi: 0xab6f, Stride: 1},
}}

func scriptOf(r rune) string {
	for _, s := range everyday {
		if unicode.Is(unicode.Scripts[s], r) {
			return s
		}
	}
	return ""
}

// digitBlock tells the digits of one script from those of another: each script's ten share all but the last four bits.
func digitBlock(r rune) rune { return r &^ 0xf }

type scriptSet map[string]bool

func (s *scriptSet) add(script string) {
	if script == "Common" || script == "Inherited" {
		return
	}
	if *s == nil {
		*s = scriptSet{}
	}
	(*s)[script] = true
}

// together are scripts that one language writes with.
var together = [][]string{{"Latin", "Han", "Hiragana", "Katakana"}, {"Latin", "Han", "Bopomofo"}, {"Latin", "Han", "Hangul"}}

// oneWriting reports whether the scripts are what one language is written with.
func (s scriptSet) oneWriting() bool {
	if len(s) <= 1 {
		return true
	}
	for _, allowed := range together {
		n := 0
		for _, script := range allowed {
			if s[script] {
				n++
			}
		}
		if n == len(s) {
			return true
		}
	}
	return false
}

// skeleton is what a prepared name looks like: names with one skeleton can hardly be told apart. It follows UTS #39 §4
// with a table of our own, of letters that look like Latin ones in common typefaces.
func skeleton(prepared string) string {
	var b strings.Builder
	for _, r := range norm.NFD.String(prepared) {
		if like, ok := lookalikes[r]; ok {
			b.WriteString(like)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// giveSkeleton keeps what the name of an account looks like that is older than skeletons.
func (s *Service) giveSkeleton(ctx context.Context, a *store.Account) {
	if err := s.store.SetSkeleton(ctx, a.ID, skeleton(a.Name)); err != nil && !errors.Is(err, store.ErrExists) {
		s.log.WarnContext(ctx, "what a name looks like was not stored", "account", a.ID, "error", err)
	}
}
