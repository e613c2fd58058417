package wire

import (
	"bytes"
	"testing"
	"time"

	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/ids"
)

func hotEnqueue() Envelope {
	now := time.UnixMilli(1_700_000_000_000)
	return Envelope{CorrelationID: 7, Body: &EnqueueRequest{ChannelID: ids.New(), Generation: 1,
		DeliveryID: ids.NewDelivery(now), Payload: bytes.Repeat([]byte{0xa5}, 1024)}}
}

func hotDelivery() Envelope {
	now := time.UnixMilli(1_700_000_000_000)
	return Envelope{Body: &Delivery{ChannelID: ids.New(), Seq: 9, PrevSeq: 8, Kind: KindApplication, Generation: 1,
		SenderAccountID: ids.New(), SenderDeviceID: ids.New(), DeliveryID: ids.NewDelivery(now), AcceptedAt: now,
		Payload: bytes.Repeat([]byte{0xa5}, 1024)}}
}

func hotAnswer() Envelope {
	return Envelope{CorrelationID: 7, Body: &EnqueueResponse{Seq: 9, AcceptedAt: time.UnixMilli(1_700_000_000_000)}}
}

func BenchmarkMarshal(b *testing.B) {
	for name, e := range map[string]Envelope{"enqueue": hotEnqueue(), "answer": hotAnswer(), "delivery": hotDelivery()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Marshal(e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkUnmarshal(b *testing.B) {
	for name, e := range map[string]Envelope{"enqueue": hotEnqueue(), "answer": hotAnswer(), "delivery": hotDelivery()} {
		b.Run(name, func(b *testing.B) {
			buf, err := Marshal(e)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.SetBytes(int64(len(buf)))
			for b.Loop() {
				if _, err := Unmarshal(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkEnqueueRoundTrip is what one enqueue costs in codec and framing on both sides: request out, request in,
// answer out, answer in.
func BenchmarkEnqueueRoundTrip(b *testing.B) {
	request, answer := hotEnqueue(), hotAnswer()
	b.ReportAllocs()
	for b.Loop() {
		for _, e := range []Envelope{request, answer} {
			buf, err := Marshal(e)
			if err != nil {
				b.Fatal(err)
			}
			if buf, err = frame.Read(bytes.NewReader(buf), frame.ControlLimit); err != nil {
				b.Fatal(err)
			}
			if _, err = Unmarshal(buf); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// The hot path's allocations: a frame, a message and its arena to write; a message, a body and the two functions that
// reach it to read. A change that needs more is a decision, not an accident.
func TestHotPathAllocations(t *testing.T) { //nolint:paralleltest // it counts allocations.
	const maxMarshal, maxUnmarshal = 3, 4
	for name, e := range map[string]Envelope{"enqueue": hotEnqueue(), "answer": hotAnswer(), "delivery": hotDelivery()} {
		buf := mustMarshal(t, e)
		if n := testing.AllocsPerRun(200, func() { _, _ = Marshal(e) }); n > maxMarshal {
			t.Errorf("Marshal of an %s: %v allocations, at most %d are needed", name, n, maxMarshal)
		}
		if n := testing.AllocsPerRun(200, func() { _, _ = Unmarshal(buf) }); n > maxUnmarshal {
			t.Errorf("Unmarshal of an %s: %v allocations, at most %d are needed", name, n, maxUnmarshal)
		}
	}
}
