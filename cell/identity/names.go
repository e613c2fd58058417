package identity

import (
	"unicode/utf8"

	"golang.org/x/text/secure/precis"

	"quicproquo.dev/schema/wire"
)

const maxNameRunes = 64

// prepareName applies the UsernameCaseMapped profile (RFC 8265 §3.3), so that names which look the same to the
// profile are the same.
func prepareName(name string) (string, error) {
	prepared, err := precis.UsernameCaseMapped.String(name)
	if err != nil || prepared == "" || utf8.RuneCountInString(prepared) > maxNameRunes {
		return "", wire.Errorf(wire.CodeInvalidArgument,
			"that is no account name: take 1 to %d letters, digits or punctuation, without spaces (RFC 8265)", maxNameRunes).With("field", "name")
	}
	return prepared, nil
}
