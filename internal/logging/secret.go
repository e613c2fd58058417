package logging

import (
	"fmt"
	"log/slog"
)

// Secret is a text that is neither logged nor printed, whatever holds it: also where fmt looks through a structure's
// unexported fields and asks no method, since it does not follow pointers there.
type Secret struct{ text *string }

// NewSecret hides a text.
func NewSecret(s string) Secret { return Secret{&s} }

// Reveal returns it; empty for a zero Secret.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

const hidden = "(secret)"

// Format implements fmt.Formatter: nothing is printed, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, hidden) }

// LogValue implements slog.LogValuer: nothing is logged.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText implements encoding.TextMarshaler: nothing is encoded.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
