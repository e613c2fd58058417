package session

import (
	"context"
	"io"
	"sync"
)

// pushHighWater is how many bytes may wait for the stream before pushes wait too. Responses never wait: they are
// bounded by the requests in flight.
const pushHighWater = 1 << 20

// writer is the only one who writes to the control stream. What comes while a write is under way goes out together
// with the next.
type writer struct {
	out     io.Writer
	written func(responses int) // Called after each write.

	mu        sync.Mutex
	buf       []byte
	responses int
	err       error
	wake      chan struct{} // One token: buf has content, or err is set.
	space     chan struct{} // Closed and replaced after each write.
}

func newWriter(out io.Writer, written func(int)) *writer {
	return &writer{out: out, written: written, wake: make(chan struct{}, 1), space: make(chan struct{})}
}

// respond queues a response's frame and never waits.
func (w *writer) respond(frame []byte) {
	w.mu.Lock()
	w.buf = append(w.buf, frame...)
	w.responses++
	w.mu.Unlock()
	w.signal()
}

// push queues a push's frame, after waiting for space.
func (w *writer) push(ctx context.Context, frame []byte) error {
	for {
		w.mu.Lock()
		if w.err != nil {
			w.mu.Unlock()
			return w.err
		}
		if len(w.buf) < pushHighWater {
			w.buf = append(w.buf, frame...)
			w.mu.Unlock()
			w.signal()
			return nil
		}
		space := w.space
		w.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-space:
		}
	}
}

func (w *writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run writes until ctx ends or the stream fails. What was queued before ctx ended is still written.
func (w *writer) run(ctx context.Context) {
	var spare []byte
	for {
		ended := false
		select {
		case <-ctx.Done():
			ended = true
		case <-w.wake:
		}
		var err error
		spare, err = w.flush(spare)
		if err != nil || ended {
			w.fail(err)
			return
		}
	}
}

// flush writes what is queued and returns the buffer for reuse.
func (w *writer) flush(spare []byte) ([]byte, error) {
	w.mu.Lock()
	b, responses := w.buf, w.responses
	w.buf, w.responses = spare[:0], 0
	close(w.space)
	w.space = make(chan struct{})
	w.mu.Unlock()
	if len(b) == 0 {
		return b, nil
	}
	_, err := w.out.Write(b)
	w.written(responses)
	if cap(b) > 2*pushHighWater {
		b = nil // A burst; do not keep its memory.
	}
	return b, err
}

func (w *writer) fail(err error) {
	if err == nil {
		err = io.ErrClosedPipe
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
	close(w.space)
	w.space = make(chan struct{})
}
