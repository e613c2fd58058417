package mls

import (
	"errors"
	"testing"
)

func TestVectorsDeserialization(t *testing.T) {
	t.Parallel()
	type vector struct {
		Header hexBytes `json:"vlbytes_header"`
		Length int      `json:"length"`
	}
	runVectors(t, "deserialization", 14, func(t *testing.T, v vector) {
		r := &reader{b: v.Header}
		if got := r.varint(); got != v.Length || r.err != nil || len(r.b) != 0 {
			t.Errorf("decoded %d, %v, %d bytes left; want %d", got, r.err, len(r.b), v.Length)
		}
		wantBytes(t, "header", appendVarint(nil, v.Length), v.Header)
		if varintSize(v.Length) != len(v.Header) {
			t.Errorf("size %d, want %d", varintSize(v.Length), len(v.Header))
		}
	})
}

func TestReaderRefuses(t *testing.T) {
	t.Parallel()
	opaque := func(r *reader) { r.opaque() }
	tests := []struct {
		name string
		in   []byte
		f    func(*reader)
	}{
		{"reserved prefix", []byte{0xc0, 0, 0, 0, 0, 0, 0, 0}, opaque},
		{"one octet length in two", []byte{0x40, 0x01, 0xff}, opaque},
		{"zero length in two octets", []byte{0x40, 0x00}, opaque},
		{"two octet length in four", []byte{0x80, 0x00, 0x3f, 0xff}, opaque},
		{"cut length", []byte{0x80, 0x01}, opaque},
		{"length beyond the end", []byte{0x05, 1, 2}, opaque},
		{"huge length and nothing behind", []byte{0xbf, 0xff, 0xff, 0xff}, opaque},
		{"trailing byte", []byte{0x01, 1, 2}, opaque},
		{"empty", nil, opaque},
		{"presence octet 2", []byte{2}, func(r *reader) { r.optional() }},
		{"vector ends inside an element", []byte{3, 0, 1, 2}, func(r *reader) { list(r, (*reader).uint16) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := decode(tt.in, "test", tt.f); !errors.Is(err, ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
		})
	}
}

func TestLongOpaque(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 63, 64, 16383, 16384, 70000} {
		b := appendOpaque(nil, make([]byte, n))
		err := decode(b, "test", func(r *reader) {
			if got := r.opaque(); len(got) != n {
				t.Errorf("decoded %d bytes, want %d", len(got), n)
			}
		})
		if err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		same := appendVector(nil, func(b []byte) []byte { return append(b, make([]byte, n)...) })
		wantBytes(t, "vector", same, b)
	}
}
