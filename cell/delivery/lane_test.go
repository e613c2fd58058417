package delivery

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// submit hands in messages without waiting, and returns where their results will be.
func submit(t *testing.T, w *world, messages ...*store.Message) *results {
	t.Helper()
	r := &results{errs: map[ids.ID]error{}}
	for _, m := range messages {
		err := w.lane.Submit(&store.Append{Message: *m}, func(a *store.Append, err error) { r.add(a, err) })
		if err != nil {
			t.Fatal(err)
		}
	}
	return r
}

type results struct {
	mu    sync.Mutex
	order []uint64
	dup   int
	errs  map[ids.ID]error
}

func (r *results) add(a *store.Append, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, again := r.errs[a.Message.DeliveryID]; again {
		err = errors.New("answered twice")
	}
	r.errs[a.Message.DeliveryID] = err
	r.order = append(r.order, a.Message.Seq)
	if a.Duplicate {
		r.dup++
	}
}

// gateAppends makes every batch wait for a value in the returned channel.
func (f *fakeStore) gateAppends() chan struct{} {
	gate := make(chan struct{})
	f.append = func(ctx context.Context, _ []*store.Append) error {
		select {
		case <-gate:
			return nil
		case <-ctx.Done():
			return errors.Join(store.ErrUnavailable, ctx.Err())
		}
	}
	return gate
}

func some(n int, channel ids.ID) []*store.Message {
	var list []*store.Message
	for range n {
		list = append(list, message(channel, 10))
	}
	return list
}

func TestWhatArrivesDuringACommitIsTheNextBatch(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		gate := w.store.gateAppends()
		r := submit(t, w, some(1, id(10))...)
		synctest.Wait()
		rest := submit(t, w, some(20, id(10))...)
		many := submit(t, w, some(batchMessages, id(10))...)
		close(gate)
		synctest.Wait()
		if !slices.Equal(w.store.batches, []int{1, batchMessages, 20}) {
			t.Fatalf("batches of %v", w.store.batches)
		}
		order := slices.Concat(r.order, rest.order, many.order)
		if !slices.Equal(order, upTo(1, uint64(len(order)))) {
			t.Fatalf("the order of submission was lost: %v", order)
		}
	})
}

func TestABatchIsBoundedInBytes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		gate := w.store.gateAppends()
		submit(t, w, some(1, id(10))...)
		synctest.Wait()
		for range 4 {
			submit(t, w, message(id(10), 5<<20))
		}
		close(gate)
		synctest.Wait()
		if !slices.Equal(w.store.batches, []int{1, 2, 2}) {
			t.Fatalf("batches of %v", w.store.batches)
		}
	})
}

func TestSubscribersAreToldBeforeTheSender(t *testing.T) {
	t.Parallel()
	told := false
	lane := NewLane(newFakeStore(), newWorldMetrics(), quiet(), time.Now, func([]*store.Message) { told = true })
	defer lane.Close()
	done := make(chan bool)
	if err := lane.Submit(&store.Append{Message: *message(id(10), 1)}, func(*store.Append, error) { done <- told }); err != nil {
		t.Fatal(err)
	}
	if !<-done {
		t.Fatal("the sender was answered first")
	}
}

func TestARaceForADeliveryIDIsSettledOneByOne(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		gate := make(chan struct{})
		raced := message(id(10), 10)
		tries := 0
		w.store.append = func(_ context.Context, batch []*store.Append) error {
			<-gate
			for _, a := range batch {
				if a.Message.DeliveryID == raced.DeliveryID {
					if tries++; tries <= 2 { // As long as the other replica's transaction is not seen.
						return store.ErrExists
					}
					w.store.mu.Lock()
					w.store.seen[raced.DeliveryID] = &store.Message{Seq: 77}
					w.store.mu.Unlock()
				}
			}
			return nil
		}
		submit(t, w, some(1, id(10))...)
		synctest.Wait()
		r := submit(t, w, slices.Concat(some(2, id(10)), []*store.Message{raced}, some(2, id(10)))...)
		close(gate)
		synctest.Wait()
		for _, err := range r.errs {
			if err != nil {
				t.Errorf("a message was refused: %v", err)
			}
		}
		if r.dup != 1 || !slices.Equal(r.order, []uint64{2, 3, 77, 4, 5}) {
			t.Fatalf("%d duplicates, sequences %v", r.dup, r.order)
		}
	})
}

func TestALoneMessageSurvivesARaceToo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		tries := 0
		w.store.append = func(context.Context, []*store.Append) error {
			if tries++; tries == 1 {
				return store.ErrExists
			}
			return nil
		}
		r := submit(t, w, some(1, id(10))...)
		synctest.Wait()
		if !slices.Equal(r.order, []uint64{1}) || tries != 2 {
			t.Fatalf("%v after %d tries", r.order, tries)
		}
	})
}

func TestAPoisonousMessageFailsAlone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		poison := message(id(10), 10)
		bad := errors.New("no partition of relation found for row")
		gate := make(chan struct{})
		w.store.append = func(_ context.Context, batch []*store.Append) error {
			<-gate
			for _, a := range batch {
				if a.Message.DeliveryID == poison.DeliveryID {
					return bad
				}
			}
			return nil
		}
		submit(t, w, some(1, id(10))...)
		synctest.Wait()
		r := submit(t, w, slices.Concat(some(2, id(10)), []*store.Message{poison}, some(2, id(11)))...)
		close(gate)
		synctest.Wait()
		failed := 0
		for delivery, err := range r.errs {
			if err != nil {
				failed++
				if delivery != poison.DeliveryID || !errors.Is(err, bad) {
					t.Errorf("%v", err)
				}
			}
		}
		if failed != 1 || len(r.errs) != 5 {
			t.Fatalf("%d of %d failed", failed, len(r.errs))
		}
	})
}

func TestAnAbsentDatabaseFailsTheBatchAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		calls := 0
		w.store.append = func(context.Context, []*store.Append) error { calls++; return store.ErrUnavailable }
		r := submit(t, w, some(10, id(10))...)
		synctest.Wait()
		if calls > 2 { // The first message alone, then the others; never one by one.
			t.Errorf("%d tries", calls)
		}
		for _, err := range r.errs {
			if !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("%v", err)
			}
		}
	})
}

func TestAFullLaneIsBusy(t *testing.T) {
	for name, size := range map[string]int{"by count": 1, "by bytes": 5 << 20} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				gate := w.store.gateAppends()
				m := message(id(10), size)
				taken, answered := 0, 0
				for {
					m.DeliveryID = ids.New()
					err := w.lane.Submit(&store.Append{Message: *m}, func(*store.Append, error) { answered++ })
					if err == nil {
						if taken++; taken > 2*laneDepth {
							t.Fatal("it is never full")
						}
						continue
					}
					if !wire.HasCode(err, wire.CodeBusy) {
						t.Fatal(err)
					}
					break
				}
				close(gate)
				synctest.Wait()
				if answered != taken {
					t.Errorf("%d taken, %d answered", taken, answered)
				}
				if n := w.lane.share.total.bytes; n != 0 {
					t.Errorf("%d bytes are still counted", n)
				}
				if n := testutil.ToFloat64(w.hub.metrics.EnqueueQueue); n != 0 {
					t.Errorf("the queue's gauge says %v", n)
				}
				w.send(message(id(10), 1)) // There is room again.
			})
		})
	}
}

func TestCloseFinishesWhatWasTaken(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		gate := w.store.gateAppends()
		r := submit(t, w, some(2000, id(10))...)
		w.all.Go(w.lane.Close)
		synctest.Wait()
		err := w.lane.Submit(&store.Append{Message: *message(id(10), 1)}, nil)
		if !wire.HasCode(err, wire.CodeDraining) {
			t.Fatalf("after Close: %v", err)
		}
		close(gate)
		w.lane.Close()
		if len(r.order) != 2000 {
			t.Fatalf("%d of 2000 are stored", len(r.order))
		}
	})
}

func TestCloseGivesUpOnAHangingDatabase(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.store.gateAppends()
		r := submit(t, w, some(3*batchMessages, id(10))...)
		start := time.Now()
		w.lane.Close()
		if took := time.Since(start); took > closePatience {
			t.Errorf("it took %s", took)
		}
		if len(r.errs) != 3*batchMessages {
			t.Errorf("%d are answered", len(r.errs))
		}
		for _, err := range r.errs {
			if !errors.Is(err, store.ErrUnavailable) {
				t.Fatalf("%v", err)
			}
		}
	})
}

func TestAPanicInAnAnswerIsNotTheLanesEnd(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		if err := w.lane.Submit(&store.Append{Message: *message(id(10), 1)}, func(*store.Append, error) { panic("oh") }); err != nil {
			t.Fatal(err)
		}
		w.send(message(id(10), 1))
		if n := testutil.ToFloat64(w.hub.metrics.Panics); n != 1 || !strings.Contains(w.log.String(), "the answer to an enqueue") {
			t.Errorf("%v panics counted; log: %s", n, w.log)
		}
	})
}

func TestDeliveryIDWindow(t *testing.T) {
	t.Parallel()
	now, window := time.UnixMilli(1_800_000_000_000), time.Hour
	for _, x := range []struct {
		name string
		id   ids.ID
		code wire.Code
		ok   bool
	}{
		{"now", ids.NewDelivery(now), 0, true},
		{"the oldest", ids.NewDelivery(now.Add(-window)), 0, true},
		{"too old", ids.NewDelivery(now.Add(-window - time.Millisecond)), wire.CodeDeliveryIDOutOfWindow, false},
		{"the youngest", ids.NewDelivery(now.Add(maxAhead)), 0, true},
		{"too young", ids.NewDelivery(now.Add(maxAhead + time.Millisecond)), wire.CodeDeliveryIDOutOfWindow, false},
		{"version 4", func() ids.ID { d := ids.NewDelivery(now); d[6] = 0x40; return d }(), wire.CodeInvalidArgument, false},
		{"another variant", func() ids.ID { d := ids.NewDelivery(now); d[8] = 0xc0; return d }(), wire.CodeInvalidArgument, false},
		{"zero", ids.ID{}, wire.CodeInvalidArgument, false},
	} {
		at, err := CheckDeliveryID(x.id, now, window)
		if x.ok && (err != nil || at.Before(now.Add(-window))) || !x.ok && !wire.HasCode(err, x.code) {
			t.Errorf("%s: %v, %v", x.name, at, err)
		}
	}
}
