package wire

import (
	"unicode/utf8"

	"quicproquo.dev/schema/ids"
)

// decoder checks fields and keeps the first error. Its methods return functions that take a getter's two results.
type decoder struct{ err error }

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// bytes takes between lo and hi bytes.
func (d *decoder) bytes(field string, lo, hi int) func([]byte, error) []byte {
	return func(b []byte, err error) []byte {
		switch {
		case err != nil:
			d.fail(err)
		case len(b) < lo || len(b) > hi:
			d.fail(lengthError(field, len(b), lo, hi))
		}
		return b
	}
}

// id takes exactly 16 bytes that are not all zero.
func (d *decoder) id(field string) func([]byte, error) ids.ID {
	return func(b []byte, err error) ids.ID {
		if b = d.bytes(field, ids.Size, ids.Size)(b, err); len(b) != ids.Size {
			return ids.ID{}
		}
		id := ids.ID(b)
		if id.IsZero() {
			d.fail(Errorf(CodeInvalidArgument, "%s is all zero", field).With("field", field))
		}
		return id
	}
}

// optionalID takes an id or nothing.
func (d *decoder) optionalID(field string) func([]byte, error) ids.ID {
	return func(b []byte, err error) ids.ID {
		if err == nil && len(b) == 0 {
			return ids.ID{}
		}
		return d.id(field)(b, err)
	}
}

// text takes between lo and hi bytes of UTF-8.
func (d *decoder) text(field string, lo, hi int) func(string, error) string {
	return func(s string, err error) string {
		switch {
		case err != nil:
			d.fail(err)
		case len(s) < lo || len(s) > hi:
			d.fail(lengthError(field, len(s), lo, hi))
		case !utf8.ValidString(s):
			d.fail(Errorf(CodeInvalidArgument, "%s is not UTF-8", field).With("field", field))
		}
		return s
	}
}

func lengthError(field string, n, lo, hi int) *Error {
	if lo == hi {
		return Errorf(CodeInvalidArgument, "%s has %d bytes, it must have %d", field, n, lo).With("field", field)
	}
	return Errorf(CodeInvalidArgument, "%s has %d bytes, it must have %d to %d", field, n, lo, hi).With("field", field)
}

// count checks the length of a list.
func (d *decoder) count(field string, n, hi int) int {
	if n > hi {
		d.fail(Errorf(CodeInvalidArgument, "%s has %d entries, at most %d are taken", field, n, hi).With("field", field))
		return 0
	}
	return n
}

// result returns v, or the first error.
func result[T any](d *decoder, v T) (T, error) { return v, d.err }
