package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gatedStream notes each write, which waits for a value in gate.
type gatedStream struct {
	gate chan error

	mu     sync.Mutex
	writes [][]byte
}

func (g *gatedStream) Write(b []byte) (int, error) {
	err := <-g.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	g.writes = append(g.writes, bytes.Clone(b))
	return len(b), err
}

// writerTest is a running writer on a gated stream, and how many responses it reported as written.
type writerTest struct {
	*writer
	stream *gatedStream
	ended  chan error
	stop   context.CancelFunc

	mu   sync.Mutex
	done int
}

func newWriterTest() *writerTest {
	w := &writerTest{stream: &gatedStream{gate: make(chan error)}, ended: make(chan error, 1)}
	w.writer = newWriter(w.stream, func(n int) {
		w.mu.Lock()
		w.done += n
		w.mu.Unlock()
	})
	var ctx context.Context
	ctx, w.stop = context.WithCancel(context.Background())
	go func() { w.ended <- w.run(ctx) }()
	return w
}

func (w *writerTest) reported() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.done
}

func TestWhatComesDuringAWriteGoesOutTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWriterTest()
		w.respond([]byte("a"))
		synctest.Wait() // It is being written.
		w.respond([]byte("b"))
		if err := w.push(t.Context(), []byte("c")); err != nil {
			t.Fatal(err)
		}
		w.respond([]byte("d"))
		if n := w.reported(); n != 0 {
			t.Fatalf("%d responses reported before they were written", n)
		}
		close(w.stream.gate)
		synctest.Wait()
		if got := bytes.Join(w.stream.writes, []byte("|")); string(got) != "a|bcd" {
			t.Errorf("written: %s", got)
		}
		if n := w.reported(); n != 3 {
			t.Errorf("%d responses reported, want 3", n)
		}
		w.stop()
		<-w.ended //nolint:errcheck // Only its end matters.
	})
}

func TestPushesWaitAtHighWaterAndResponsesDoNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWriterTest()
		w.respond([]byte("first"))
		synctest.Wait()
		w.respond(make([]byte, highWater))
		pushed, room := make(chan error, 1), make(chan error, 1)
		go func() { pushed <- w.push(context.Background(), []byte("push")) }()
		go func() { room <- w.awaitRoom(context.Background()) }()
		synctest.Wait()
		w.respond(make([]byte, highWater)) // Does not wait.
		if len(pushed)+len(room) != 0 {
			t.Fatal("somebody did not wait at high water")
		}
		w.stream.gate <- nil // The first.
		synctest.Wait()      // What waited is taken for the next write: there is space.
		if len(pushed) != 1 || len(room) != 1 {
			t.Fatalf("%d pushed, %d found room", len(pushed), len(room))
		}
		close(w.stream.gate)
		w.stop()
		<-w.ended //nolint:errcheck // Only its end matters.
		if last := w.stream.writes[len(w.stream.writes)-1]; string(last) != "push" {
			t.Errorf("the end was not written: %.10q", last)
		}
	})
}

func TestAWaitingPushEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWriterTest()
		w.respond([]byte("first"))
		synctest.Wait()
		w.respond(make([]byte, highWater))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := w.push(ctx, []byte("push")); !errors.Is(err, context.Canceled) {
			t.Errorf("push: %v", err)
		}
		if err := w.awaitRoom(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("awaitRoom: %v", err)
		}
		close(w.stream.gate)
		w.stop()
		<-w.ended //nolint:errcheck // Only its end matters.
	})
}

func TestAFailedWriteWakesEverybodyAndFreesEverything(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWriterTest()
		w.respond([]byte("first"))
		synctest.Wait()
		w.respond(make([]byte, highWater))
		pushed := make(chan error, 2)
		go func() { pushed <- w.push(context.Background(), []byte("push")) }()
		go func() { pushed <- w.awaitRoom(context.Background()) }()
		synctest.Wait()
		broken := errors.New("stopped by the peer")
		w.stream.gate <- broken
		if err := <-w.ended; !errors.Is(err, broken) {
			t.Errorf("run: %v", err)
		}
		for range 2 {
			if err := <-pushed; !errors.Is(err, broken) {
				t.Errorf("a waiter: %v", err)
			}
		}
		w.respond([]byte("late"))
		if err := w.push(t.Context(), []byte("late")); !errors.Is(err, broken) {
			t.Errorf("a late push: %v", err)
		}
		if n := w.reported(); n != 3 {
			t.Errorf("%d of 3 responses gave back their place", n)
		}
		if w.buf != nil {
			t.Errorf("%d bytes are kept", len(w.buf))
		}
		w.stop()
	})
}

func TestWhatWasQueuedIsWrittenAtTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWriterTest()
		close(w.stream.gate)
		w.stop()
		w.respond([]byte("last"))
		if err := <-w.ended; err != nil {
			t.Errorf("run: %v", err)
		}
		w.respond([]byte("too late"))
		if err := w.push(t.Context(), nil); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("a push after the end: %v", err)
		}
		if n := w.reported(); n != 2 {
			t.Errorf("%d responses gave back their place, want 2", n)
		}
	})
}

func TestABurstsBufferIsNotKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWriterTest()
		close(w.stream.gate)
		w.respond(make([]byte, 4*highWater))
		synctest.Wait()
		w.respond([]byte("small"))
		synctest.Wait()
		w.stop()
		<-w.ended //nolint:errcheck // Only its end matters.
		if cap(w.buf) > 2*highWater {
			t.Errorf("a buffer of %d bytes is kept", cap(w.buf))
		}
	})
}
