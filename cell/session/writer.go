package session

import (
	"context"
	"io"
	"sync"
)

// highWater is how many bytes may wait for the stream before pushes wait too, and before the session reads no
// further. Responses never wait.
const highWater = 1 << 20

// writer is the only one who writes to the control stream. What comes while a write is under way goes out together
// with the next.
type writer struct {
	out     io.Writer
	written func(responses int) // Called once for all responses of each write, also of a failed one.

	mu        sync.Mutex
	buf       []byte
	responses int
	err       error
	wake      chan struct{} // One token: buf has content.
	space     chan struct{} // Closed and replaced when buf is taken, and for good when err is set.
}

func newWriter(out io.Writer, written func(int)) *writer {
	return &writer{out: out, written: written, wake: make(chan struct{}, 1), space: make(chan struct{})}
}

// respond queues a response's frame and never waits. When the writer has ended the frame goes nowhere.
func (w *writer) respond(frame []byte) {
	w.mu.Lock()
	ended := w.err != nil
	if !ended {
		w.buf = append(w.buf, frame...)
		w.responses++
	}
	w.mu.Unlock()
	if ended {
		w.written(1)
		return
	}
	w.signal()
}

// push queues a push's frame, after waiting for space.
func (w *writer) push(ctx context.Context, frame []byte) error {
	for {
		queued, space, err := w.tryPush(frame)
		if err != nil || queued {
			return err
		}
		if err := await(ctx, space); err != nil {
			return err
		}
	}
}

func (w *writer) tryPush(frame []byte) (queued bool, space <-chan struct{}, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || len(w.buf) >= highWater {
		return false, w.space, w.err
	}
	w.buf = append(w.buf, frame...)
	w.signal()
	return true, nil, nil
}

// awaitRoom waits until less than the high water is queued.
func (w *writer) awaitRoom(ctx context.Context) error {
	for {
		room, space, err := w.room()
		if err != nil || room {
			return err
		}
		if err := await(ctx, space); err != nil {
			return err
		}
	}
}

func (w *writer) room() (room bool, space <-chan struct{}, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.buf) < highWater, w.space, w.err
}

func await(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c:
		return nil
	}
}

func (w *writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run writes until ctx ends, or until the stream fails and with that error. What was queued before ctx ended is still
// written.
func (w *writer) run(ctx context.Context) error {
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
			w.finish(err)
			return err
		}
	}
}

// flush writes what is queued and returns the buffer for reuse.
func (w *writer) flush(spare []byte) ([]byte, error) {
	b, responses := w.take(spare)
	if len(b) == 0 {
		return b, nil
	}
	_, err := w.out.Write(b)
	w.written(responses)
	if cap(b) > 2*highWater {
		b = nil // A burst; do not keep its memory.
	}
	return b, err
}

func (w *writer) take(spare []byte) (b []byte, responses int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b, responses = w.buf, w.responses
	w.buf, w.responses = spare[:0], 0
	close(w.space)
	w.space = make(chan struct{})
	return b, responses
}

// finish drops what is queued and lets nobody wait any more.
func (w *writer) finish(err error) {
	if err == nil {
		err = io.ErrClosedPipe
	}
	w.mu.Lock()
	responses := w.responses
	w.err, w.buf, w.responses = err, nil, 0
	close(w.space)
	w.mu.Unlock()
	w.written(responses)
}
