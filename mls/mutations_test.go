package mls

import (
	"bytes"
	"slices"
	"testing"
)

// mutations calls f with every way of spoiling b a little: each byte changed, every
// truncation, a byte more, and at each place where a length may be the largest
// lengths that its one, two or four bytes can say. f must not keep its argument.
func mutations(b []byte, f func([]byte)) {
	for n := range b {
		f(b[:n])
	}
	f(append(bytes.Clone(b), 0))
	longest := [][]byte{{0x3f}, {0x7f, 0xff}, {0xbf, 0xff, 0xff, 0xff}, {0xff, 0xff, 0xff, 0xff}}
	bits := []byte{0x01, 0x40, 0x80, 0xff}
	if len(b) > 600 { // long ones cost most and repeat themselves
		bits, longest = bits[:1], longest[2:3]
	}
	bad := bytes.Clone(b)
	for i := range b {
		for _, bit := range bits {
			bad[i] ^= bit
			f(bad)
			bad[i] = b[i]
		}
		for _, length := range longest {
			copy(bad[i:], length)
			f(bad)
			copy(bad[i:], b[i:min(i+4, len(b))])
		}
	}
}

// All decoders over the official vectors and the engine's own states, spoiled
// systematically: no panic, no large allocation, and what is accepted all the same
// encodes to the bytes it came from.
func TestDecodersOfMutatedVectors(t *testing.T) {
	// Not parallel: it measures what is allocated.
	all := seedInputs(t)
	inputs, accepted, refused := map[string]int{}, 0, 0
	slices.SortStableFunc(all, func(a, b seedInput) int { return len(a.b) - len(b.b) })
	for _, s := range all {
		if inputs[s.decoder]++; inputs[s.decoder] > 1 && len(s.b) > 600 || inputs[s.decoder] > 2 { // the shortest: the forms repeat
			continue
		}
		d := decoderNamed(t, s.decoder)
		mutations(s.b, func(b []byte) {
			if d.check(t, b) {
				accepted++
			} else {
				refused++
			}
		})
		if t.Failed() {
			t.Fatalf("%s, spoiled sample of %d bytes", s.decoder, len(s.b))
		}
	}
	// Every sample as everything else.
	for _, s := range all {
		for _, d := range decoders {
			d.check(t, s.b)
		}
	}
	t.Logf("%d decoders, %d inputs accepted, %d refused", len(inputs), accepted, refused)
	if accepted < 1000 || refused < 10_000 {
		t.Error("hardly anything was tried")
	}
}
