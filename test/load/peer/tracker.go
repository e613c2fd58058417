package peer

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ContentSize is the size of every message's content in bytes, at least MinContent. It is set before anything else is
// done.
var ContentSize = 1024

// MinContent is the least ContentSize.
const MinContent = 2 * header

// header is what a content says of itself: run, pair, number, and the time when it was meant to be sent. The rest is
// random.
const header = 4 + 4 + 8 + 8

// Tracker numbers the messages of one run, and checks that every device got each once and in order. It is safe for
// concurrent use; each device has a lock of its own.
type Tracker struct {
	run     uint32
	epoch   time.Time
	noise   []byte
	sent    []uint64 // By pair: how many were numbered.
	refused []map[uint64]bool
	mu      sync.Mutex // Of refused.
	devices [][]receiver
}

type receiver struct {
	mu       sync.Mutex
	next     uint64
	missing  map[uint64]bool
	doubled  int
	late     int
	foreign  int
	received int
	lags     []time.Duration
	last     time.Time
}

// NewTracker returns a Tracker of one run.
func NewTracker(run uint32, t Topology) *Tracker {
	k := &Tracker{run: run, epoch: time.Now(), noise: make([]byte, 1<<20), sent: make([]uint64, t.Pairs)}
	rand.Read(k.noise) //nolint:errcheck // crypto/rand.Read never fails.
	for range t.Pairs {
		k.devices = append(k.devices, make([]receiver, t.Devices))
		k.refused = append(k.refused, map[uint64]bool{})
	}
	return k
}

// Fill makes the next content of a pair, ContentSize bytes, and returns its number. One goroutine calls it.
func (k *Tracker) Fill(content []byte, pair int, intended time.Time) uint64 {
	n := k.sent[pair]
	k.sent[pair]++
	at := (int(n)*1031 + pair*4099) % (len(k.noise) - ContentSize) //nolint:gosec // runs are short.
	copy(content, k.noise[at:at+ContentSize])
	binary.LittleEndian.PutUint32(content, k.run)
	binary.LittleEndian.PutUint32(content[4:], uint32(pair)) //nolint:gosec // pairs are few.
	binary.LittleEndian.PutUint64(content[8:], n)
	binary.LittleEndian.PutUint64(content[16:], uint64(intended.Sub(k.epoch))) //nolint:gosec // after the epoch.
	return n
}

// Refuse notes that a message was not taken, so that nobody waits for it.
func (k *Tracker) Refuse(pair int, n uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refused[pair][n] = true
}

// Deliver is the peer.Deliver of this run. Messages of other runs are not counted.
func (k *Tracker) Deliver(pair, device int, content []byte) {
	now := time.Now()
	r := &k.devices[pair][device]
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(content) != ContentSize || binary.LittleEndian.Uint32(content[4:]) != uint32(pair) { //nolint:gosec // pairs are few.
		r.foreign++
		return
	}
	if binary.LittleEndian.Uint32(content) != k.run {
		return
	}
	r.take(binary.LittleEndian.Uint64(content[8:]))
	r.received++
	r.last = now
	r.lags = append(r.lags, now.Sub(k.epoch)-time.Duration(binary.LittleEndian.Uint64(content[16:]))) //nolint:gosec // as written.
}

// take sorts a number in.
func (r *receiver) take(n uint64) {
	switch {
	case n >= r.next:
		for ; r.next < n; r.next++ {
			if r.missing == nil {
				r.missing = map[uint64]bool{}
			}
			r.missing[r.next] = true
		}
		r.next++
	case r.missing[n]:
		delete(r.missing, n)
		r.late++
	default:
		r.doubled++
	}
}

// Verdict is what came of a run, over all devices.
type Verdict struct {
	Received                          int
	Lost, Doubled, Reordered, Foreign int
	Lags                              []time.Duration // From the intended time to the device.
	Last                              time.Time       // When the last delivery came.
}

// Err is nil when every message reached every device once and in order.
func (v Verdict) Err() error {
	if v.Lost+v.Doubled+v.Reordered+v.Foreign == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d lost, %d doubled, %d out of order, %d with a wrong content", errBroken, v.Lost, v.Doubled, v.Reordered, v.Foreign)
}

var errBroken = errors.New("not delivered once and in order")

// Complete reports whether everything that was taken has been delivered.
func (k *Tracker) Complete() bool { return k.outstanding() == 0 }

func (k *Tracker) outstanding() int {
	n := 0
	k.each(func(pair int, r *receiver, refused map[uint64]bool) { n += r.lost(k.sent[pair], refused) })
	return n
}

// lost counts what was sent, taken and never came.
func (r *receiver) lost(sent uint64, refused map[uint64]bool) int {
	n := len(r.missing) + int(sent-r.next) //nolint:gosec // runs are short.
	for x := range refused {
		if x >= r.next || r.missing[x] {
			n--
		}
	}
	return n
}

func (k *Tracker) each(f func(pair int, r *receiver, refused map[uint64]bool)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for pair := range k.devices {
		for i := range k.devices[pair] {
			r := &k.devices[pair][i]
			r.mu.Lock()
			f(pair, r, k.refused[pair])
			r.mu.Unlock()
		}
	}
}

// Judge sums up the run. The publisher must have ended.
func (k *Tracker) Judge() Verdict {
	var v Verdict
	k.each(func(pair int, r *receiver, refused map[uint64]bool) {
		v.Received += r.received
		v.Lost += r.lost(k.sent[pair], refused)
		v.Doubled += r.doubled
		v.Reordered += r.late
		v.Foreign += r.foreign
		v.Lags = append(v.Lags, r.lags...)
		if r.last.After(v.Last) {
			v.Last = r.last
		}
	})
	return v
}
