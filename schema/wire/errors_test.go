package wire

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"quicproquo.dev/schema"
)

// An error must reach its reader whatever its words are: the encoder cuts what the decoder would refuse.
func TestErrorsAlwaysArrive(t *testing.T) {
	t.Parallel()
	many := Errorf(CodeInternal, "many details")
	for i := range 20 {
		many.With(fmt.Sprint("key", i), "value")
	}
	for name, e := range map[string]*Error{
		"a long message":      Errorf(CodeInternal, "%s", strings.Repeat("é", maxErrorMessage)),
		"a rune on the limit": Errorf(CodeInternal, "%s", strings.Repeat("a", maxErrorMessage-1)+"€"),
		"no UTF-8":            Errorf(CodeInternal, "%s", strings.Repeat("\xff", maxErrorMessage)).With("\xfe", "\xfd"),
		"long details":        Errorf(CodeInternal, "x").With(strings.Repeat("k", 1000), strings.Repeat("v", 5000)),
		"many details":        many,
		"nothing at all":      {},
	} {
		got, err := Unmarshal(mustMarshal(t, Envelope{CorrelationID: 3, Body: e}))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		arrived := got.Body.(*Error)
		if arrived.Code != e.Code || len(arrived.Message) > maxErrorMessage || !utf8.ValidString(arrived.Message) || len(arrived.Details) > maxDetails {
			t.Errorf("%s: code %v, %d bytes, %d details", name, arrived.Code, len(arrived.Message), len(arrived.Details))
		}
		if valid := strings.ToValidUTF8(e.Message, "\uFFFD"); !strings.HasPrefix(valid, arrived.Message) || len(valid) > maxErrorMessage && len(arrived.Message) < maxErrorMessage-3 {
			t.Errorf("%s: the message is not the beginning of what was sent (%d bytes)", name, len(arrived.Message))
		}
	}
}

func TestTheDecoderRefusesWhatTheEncoderCuts(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(schema.Error) error{
		"message": func(e schema.Error) error { return e.SetMessage_(strings.Repeat("a", maxErrorMessage+1)) },
		"details": func(e schema.Error) error { _, err := e.NewDetails(maxDetails + 1); return err },
		"key": func(e schema.Error) error {
			list, _ := e.NewDetails(1)
			return list.At(0).SetKey(strings.Repeat("a", maxDetailKey+1))
		},
		"value": func(e schema.Error) error {
			list, _ := e.NewDetails(1)
			return list.At(0).SetValue("\xff")
		},
	} {
		_, err := Unmarshal(build(t, func(env schema.Envelope) error {
			e, err := env.NewError()
			return first(err, write(e))
		}))
		checkError(t, err, CodeInvalidArgument, "field", name)
	}
}

func TestRetryAfterOnTheWire(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want time.Duration }{
		{0, 0}, {time.Microsecond, 0}, {1500 * time.Microsecond, time.Millisecond}, {time.Hour, time.Hour}, {-time.Hour, 0},
		{math.MaxInt64, math.MaxUint32 * time.Millisecond},
	} {
		got, err := Unmarshal(mustMarshal(t, Envelope{Body: RetryAfterf(CodeBusy, c.in, "busy")}))
		if err != nil {
			t.Fatal(err)
		}
		if e := got.Body.(*Error); e.RetryAfter != c.want || !e.Retryable {
			t.Errorf("%v arrives as %v, retryable %v; want %v", c.in, e.RetryAfter, e.Retryable, c.want)
		}
	}
}

func TestErrorsCanBeRecognised(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("asking: %w", Errorf(CodeNotFound, "no account %q", "bob"))
	plain := errors.New("plain")
	if got := err.Error(); got != `asking: notFound: no account "bob"` {
		t.Error(got)
	}
	if CodeOf(err) != CodeNotFound || CodeOf(plain) != CodeInternal {
		t.Errorf("CodeOf: %v, %v", CodeOf(err), CodeOf(plain))
	}
	if !HasCode(err, CodeBusy, CodeNotFound) || HasCode(err, CodeBusy) || HasCode(err) || HasCode(plain, CodeInternal) || HasCode(nil, CodeInternal) {
		t.Error("HasCode is true for a code it was not given, or false for one it was")
	}
	if !errors.Is(err, &Error{Code: CodeNotFound}) || errors.Is(err, &Error{Code: CodeBusy}) ||
		errors.Is(err, &Error{Code: CodeNotFound, Message: "other"}) || errors.Is(plain, &Error{}) {
		t.Error("errors.Is compares codes, and only with a target that has no message")
	}
	if got := (&Error{Code: 999, Message: "new"}).Error(); got != "error code 999: new" {
		t.Error(got)
	}
}
