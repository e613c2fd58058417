package delivery

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/cell/telemetry"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// One client cannot fill the lane for everyone.
func TestOneAccountCannotFillTheLaneForOthers(t *testing.T) {
	t.Parallel()
	f := newFakeStore()
	blocked := make(chan struct{})
	f.append = func(ctx context.Context, _ []*store.Append) error {
		select {
		case <-blocked:
		case <-ctx.Done():
		}
		return nil
	}
	l := NewLane(f, telemetry.New(), slog.New(slog.DiscardHandler), time.Now, func([]*store.Message) {})
	greedy := ids.New()
	submit := func(account ids.ID, size int) error {
		return l.Submit(&store.Append{Message: store.Message{SenderAccount: account, ChannelID: ids.New(), DeliveryID: ids.New(), Payload: make([]byte, size)}}, func(*store.Append, error) {})
	}
	taken := 0
	var err error
	for ; err == nil; taken++ {
		err = submit(greedy, 1<<20)
	}
	var refusal *wire.Error
	if !errors.As(err, &refusal) || refusal.Code != wire.CodeBusy || refusal.RetryAfter <= 0 {
		t.Fatal(err)
	}
	if most := laneBytes >> 20 / 2; taken-1 > most {
		t.Errorf("one account has %d MiB in the lane", taken-1)
	}
	for range 5 { // Others, each with the largest message there is.
		if err := submit(ids.New(), 5<<20); err != nil {
			t.Errorf("another account: %v", err)
		}
	}
	close(blocked)
	l.Close()
}

// Whoever has nothing in the queue gets in as long as there is room at all, the bounds hold, and what was taken is given back.
func TestShareKeepsItsBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "x"})
		s := newShare(16, 1000, gauge)
		accounts := []ids.ID{{1}, {2}, {3}, {4}}
		type part struct {
			account ids.ID
			size    int64
		}
		var in []part
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if len(in) > 0 && rapid.Bool().Draw(t, "leaves") {
				i := rapid.IntRange(0, len(in)-1).Draw(t, "who")
				s.give(in[i].account, in[i].size)
				in = append(in[:i], in[i+1:]...)
				continue
			}
			p := part{rapid.SampledFrom(accounts).Draw(t, "account"), rapid.Int64Range(0, 300).Draw(t, "size")}
			sum, mine := p.size, 0
			for _, o := range in {
				sum += o.size
				if o.account == p.account {
					mine++
				}
			}
			ok, full := s.take(p.account, p.size)
			room := len(in) < 16 && sum <= 1000
			if ok && !room || full == room || mine == 0 && ok != room {
				t.Fatalf("%+v with %d in the queue, %d bytes: %v, %v", p, len(in), sum, ok, full)
			}
			if ok {
				in = append(in, p)
			}
		}
		for _, p := range in {
			s.give(p.account, p.size)
		}
		if s.total != (holding{}) || len(s.held) != 0 {
			t.Fatalf("left over: %+v, %d accounts", s.total, len(s.held))
		}
	})
}
