package delivery

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/cell/telemetry"
	"quicproquo.dev/schema/ids"
)

const (
	heartbeatEvery     = 5 * time.Second
	silenceIsDeath     = 3 * heartbeatEvery // Of another process, and of this one's listener, which hears its own heartbeats.
	wakeupsWaiting     = 8192               // Things to tell; what comes on top is found by polling.
	notifyPatience     = 5 * time.Second
	listenRetryFirst   = 100 * time.Millisecond
	listenRetryLongest = 10 * time.Second
)

// A WakeupKind says what happened.
type WakeupKind byte

// WakeupChannel says that a channel has grown to a sequence, WakeupDevice that a device has begun its so manieth subscription.
const (
	WakeupChannel WakeupKind = 'c'
	WakeupDevice  WakeupKind = 'd'
)

// Bus carries texts between the processes of a cell; *store.Store is one.
type Bus interface {
	// Notify sends texts of at most store.WakeupSize bytes to every process that listens, this one included.
	Notify(ctx context.Context, texts []string) error
	// Listen calls heard for each text, from the moment when it calls ready; it returns an error when it ends.
	Listen(ctx context.Context, ready func(), heard func(text string)) error
}

// Wakeups tells the other processes of a cell what has happened here, and hears what has happened there. It is an
// accelerator: what is lost, whoever hears too late and a database that cannot do it are covered by polling.
//
// What is told waits until the text before it has been sent, and goes out together; of one thing only the highest number
// does. Nothing is told while no other process has been heard for a while. It is safe for concurrent use.
type Wakeups struct {
	bus     Bus
	metrics *telemetry.Metrics
	log     *slog.Logger
	now     func() time.Time
	self    string // Tells our own texts from others'.

	listening func()                                        // The listener works, or works again.
	working   atomic.Bool                                   // The listener hears.
	hear      map[WakeupKind]func(id ids.ID, number uint64) // Set before Run.

	mu      sync.Mutex
	waiting map[wakeup]uint64
	greet   bool                 // A heartbeat is due.
	peers   map[string]time.Time // When each was last heard.
	wake    chan struct{}        // One token: there is something to send.
}

type wakeup struct {
	kind WakeupKind
	id   ids.ID
}

// NewWakeups returns Wakeups; Run keeps them going. listening is called each time that the listener has begun to work.
func NewWakeups(bus Bus, m *telemetry.Metrics, log *slog.Logger, now func() time.Time, listening func()) *Wakeups {
	var self [8]byte
	rand.Read(self[:]) //nolint:errcheck // crypto/rand.Read never fails.
	return &Wakeups{bus: bus, metrics: m, log: log, now: now, self: hex.EncodeToString(self[:]), listening: listening,
		hear: map[WakeupKind]func(ids.ID, uint64){}, waiting: map[wakeup]uint64{}, peers: map[string]time.Time{}, wake: make(chan struct{}, 1)}
}

// Working reports whether this process hears the others at the moment.
func (w *Wakeups) Working() bool { return w.working.Load() }

// On has f called, from Run's listener, for what other processes tell of kind. It must not take long. Call it before Run.
func (w *Wakeups) On(kind WakeupKind, f func(id ids.ID, number uint64)) { w.hear[kind] = f }

// Tell lets the other processes know. It neither waits nor fails.
func (w *Wakeups) Tell(kind WakeupKind, id ids.ID, number uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.peers) == 0 {
		return
	}
	key := wakeup{kind, id}
	before, there := w.waiting[key]
	if !there && len(w.waiting) >= wakeupsWaiting {
		w.metrics.WakeupsDropped.Inc()
		return
	}
	w.waiting[key] = max(before, number)
	w.metrics.WakeupsWaiting.Set(float64(len(w.waiting)))
	w.signal()
}

func (w *Wakeups) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Run sends and listens until ctx ends.
func (w *Wakeups) Run(ctx context.Context) {
	var both sync.WaitGroup
	both.Go(func() { w.send(ctx) })
	both.Go(func() { w.listen(ctx) })
	both.Wait()
}

// send is the only one that calls Notify.
func (w *Wakeups) send(ctx context.Context) {
	beat := time.NewTicker(heartbeatEvery)
	defer beat.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-beat.C:
			w.heartbeat()
		}
		texts := w.take()
		if len(texts) == 0 {
			continue
		}
		err := w.notify(ctx, texts)
		switch {
		case errors.Is(err, store.ErrNoWakeups):
			return
		case err != nil && !failing && ctx.Err() == nil:
			w.log.WarnContext(ctx, "telling other replicas of new messages failed; they find them by polling", "error", err)
		}
		failing = err != nil
	}
}

func (w *Wakeups) notify(ctx context.Context, texts []string) error {
	ctx, cancel := context.WithTimeout(ctx, notifyPatience)
	defer cancel()
	err := w.bus.Notify(ctx, texts)
	if err != nil {
		w.metrics.WakeupsSent.WithLabelValues("failed").Add(float64(len(texts)))
		return err
	}
	w.metrics.WakeupsSent.WithLabelValues("ok").Add(float64(len(texts)))
	return nil
}

// heartbeat asks for one, and forgets processes that have long been silent.
func (w *Wakeups) heartbeat() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.greet = true
	for name, at := range w.peers {
		if w.now().Sub(at) > silenceIsDeath {
			delete(w.peers, name)
		}
	}
	w.metrics.Replicas.Set(float64(1 + len(w.peers)))
}

// take empties what waits into as few texts as hold it.
func (w *Wakeups) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var texts []string
	var items []byte
	flush := func() {
		texts = append(texts, wakeupVersion+w.self+" "+base64.RawStdEncoding.EncodeToString(items))
		items = items[:0]
	}
	for key, number := range w.waiting {
		items = append(items, byte(key.kind))
		items = append(items, key.id[:]...)
		items = binary.BigEndian.AppendUint64(items, number)
		if len(items)+wakeupItem > wakeupItems {
			flush()
		}
	}
	if len(items) > 0 || w.greet && len(texts) == 0 {
		flush()
	}
	clear(w.waiting)
	w.greet = false
	w.metrics.WakeupsWaiting.Set(0)
	return texts
}

// A text is the version, the sender's name, a space and, in base64, items of a kind (1 byte), an id (16) and a number (8,
// big-endian). One without items is a heartbeat. Kinds and versions that are not known are passed over.
const (
	wakeupVersion = "1 "
	wakeupItem    = 1 + 16 + 8
	wakeupItems   = (store.WakeupSize - 64) / 4 * 3 // Bytes of items in a text.
)

// listen hears until ctx ends, again and again.
func (w *Wakeups) listen(ctx context.Context) {
	pause := listenRetryFirst
	for ctx.Err() == nil {
		worked, err := w.listenOnce(ctx)
		w.working.Store(false)
		w.metrics.Listening.Set(0)
		if errors.Is(err, store.ErrNoWakeups) {
			w.log.InfoContext(ctx, "messages that other replicas store are found by polling, because the configuration says that there is a transaction pooler", "every", pollEvery)
			return
		}
		if worked {
			pause = listenRetryFirst
		}
		if ctx.Err() == nil {
			w.log.WarnContext(ctx, "listening for other replicas failed; until it works again their messages are found by polling", "error", err, "retry", pause)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, listenRetryLongest)
	}
}

// listenOnce listens over one connection, for as long as it hears at least itself. worked: it has heard something.
func (w *Wakeups) listenOnce(ctx context.Context) (worked bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dead := time.AfterFunc(silenceIsDeath, func() { cancel(errDeaf) })
	defer dead.Stop()
	err = w.bus.Listen(ctx, func() {
		w.mu.Lock()
		w.greet = true // To be heard by others, and by this listener.
		w.mu.Unlock()
		w.signal()
	}, func(text string) {
		dead.Reset(silenceIsDeath)
		if !worked {
			worked = true
			w.working.Store(true)
			w.metrics.Listening.Set(1)
			w.listening()
		}
		w.heard(text)
	})
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return worked, err
}

var errDeaf = fmt.Errorf("nothing was heard for %s, not even this process itself: is there a transaction pooler between the cell and PostgreSQL? Then write `databasePooling: transaction` into the configuration", silenceIsDeath)

// heard takes one text.
func (w *Wakeups) heard(text string) {
	from, encoded, ok := strings.Cut(strings.TrimPrefix(text, wakeupVersion), " ")
	if !ok || !strings.HasPrefix(text, wakeupVersion) || from == w.self {
		return
	}
	items, err := base64.RawStdEncoding.DecodeString(encoded)
	if err != nil || len(items)%wakeupItem != 0 {
		return // From a release that writes differently: polling covers it.
	}
	w.met(from)
	for ; len(items) > 0; items = items[wakeupItem:] {
		if f, ok := w.hear[WakeupKind(items[0])]; ok {
			f(ids.ID(items[1:17]), binary.BigEndian.Uint64(items[17:wakeupItem]))
		}
	}
}

// met notes another process, and greets one that is new, so that it knows of this one.
func (w *Wakeups) met(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, known := w.peers[name]
	w.peers[name] = w.now()
	if !known {
		w.greet = true
		w.signal()
	}
	w.metrics.Replicas.Set(float64(1 + len(w.peers)))
}
