package wire

import (
	"errors"
	"testing"
	"time"

	"capnproto.org/go/capnp/v3"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/frame"
)

func buildContent(t testing.TB, fill func(schema.Content) error) []byte {
	t.Helper()
	b, err := frame.Build(64, func(seg *capnp.Segment) error {
		c, err := schema.NewRootContent(seg)
		if err != nil {
			return err
		}
		c.SetVersion(contentVersion)
		c.SetSentAt(sentAt.UnixMilli())
		return fill(c)
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestContentRoundTrip(t *testing.T) {
	t.Parallel()
	for _, want := range []Content{{SentAt: sentAt, Text: "Grüße, 世界 👋"}, {SentAt: sentAt.Add(999 * time.Microsecond).Truncate(time.Millisecond)},
		{SentAt: time.UnixMilli(-1), Text: string(make([]byte, 10_000))}} {
		b, err := MarshalContent(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := UnmarshalContent(b)
		if err != nil || got.Text != want.Text || !got.SentAt.Equal(want.SentAt) {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
}

func TestContentRefused(t *testing.T) {
	t.Parallel()
	good := buildContent(t, func(c schema.Content) error { return c.SetText("hello") })
	for name, c := range map[string]struct {
		b    []byte
		code Code
	}{
		"nothing":            {nil, CodeMalformed},
		"truncated":          {good[:len(good)-8], CodeMalformed},
		"padded":             {append(good[:len(good):len(good)], make([]byte, 8)...), CodeMalformed},
		"no root":            {make([]byte, 8), CodeMalformed},
		"an envelope":        {mustMarshal(t, Envelope{CorrelationID: 1, Body: &Done{}}), CodeUnsupportedVersion},
		"a version to come":  {buildContent(t, func(c schema.Content) error { c.SetVersion(2); return c.SetText("x") }), CodeUnsupportedVersion},
		"a kind to come":     {buildContent(t, func(c schema.Content) error { capnp.Struct(c).SetUint16(2, 2); return nil }), CodeUnsupportedVersion},
		"no kind":            {buildContent(t, func(schema.Content) error { return nil }), CodeUnsupportedVersion},
		"text that is UTF-8": {buildContent(t, func(c schema.Content) error { return c.SetText("a\xff") }), CodeInvalidArgument},
	} {
		_, err := UnmarshalContent(c.b)
		var e *Error
		if !errors.As(err, &e) || e.Code != c.code {
			t.Errorf("%s: %v, want %v", name, err, c.code)
		}
	}
}

func TestContentWithABrokenPointerIsAnError(t *testing.T) {
	t.Parallel()
	b := buildContent(t, func(c schema.Content) error { return c.SetText("hello") })
	for i := range b {
		for _, mask := range []byte{1, 0x80, 0xff} {
			bad := append([]byte(nil), b...)
			bad[i] ^= mask
			var e *Error
			if _, err := UnmarshalContent(bad); err != nil && !errors.As(err, &e) {
				t.Fatalf("byte %d: %v is no *Error", i, err)
			}
		}
	}
}

func FuzzUnmarshalContent(f *testing.F) {
	f.Add(buildContent(f, func(c schema.Content) error { return c.SetText("hello") }))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := UnmarshalContent(b)
		var e *Error
		if err != nil {
			if !errors.As(err, &e) {
				t.Fatalf("%v is no *Error", err)
			}
			return
		}
		again, err := MarshalContent(c)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := UnmarshalContent(again); err != nil || got.Text != c.Text || !got.SentAt.Equal(c.SentAt) {
			t.Fatalf("%v, %v; want %v", got, err, c)
		}
	})
}
