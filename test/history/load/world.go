package load

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/test/history/peer"
	"quicproquo.dev/test/history/record"
)

// Size says how many there are.
type Size struct {
	Accounts int // That write to each other, all pairs directly and all in one group.
	Devices  int // Of each of these.
	Writers  int // Of each device, at once.
	Racers   int // Accounts, of one device, of which each pair races for its channel.
	Targets  int // Accounts, of one device, whose KeyPackages the racers claim.
	// Pause is the most that a writer waits between two messages.
	Pause time.Duration
}

// Small and Usual are sizes.
var (
	Small = Size{Accounts: 2, Devices: 2, Writers: 2, Racers: 4, Targets: 2, Pause: 4 * time.Millisecond}
	Usual = Size{Accounts: 3, Devices: 2, Writers: 2, Racers: 6, Targets: 4, Pause: 20 * time.Millisecond}
)

// World is the clients of one run.
type World struct {
	rec   *record.Recorder
	ca    *x509.Certificate
	addrs []string // Of the replicas.
	seed  uint64
	size  Size
	name  string // Before account names, which are used once.

	stop     chan struct{} // Closed when nothing new is begun.
	clients  int
	people   []*peer.Device // With several devices for an account.
	racers   []*peer.Device
	targets  []*peer.Device
	chats    []*chat
	readers  []*reader
	working  sync.WaitGroup
	reading  sync.WaitGroup
	quit     context.CancelFunc
	quitRead context.CancelFunc

	mu       sync.Mutex
	problems []string
	codes    map[string]int
	known    map[ids.ID]int64          // Channels that have a group: since when that is certain.
	members  map[ids.ID][]*peer.Device // Their devices.
}

// New returns the clients of a run, who do nothing yet.
func New(rec *record.Recorder, ca *x509.Certificate, addrs []string, name string, seed uint64, size Size) *World {
	return &World{rec: rec, ca: ca, addrs: addrs, name: name, seed: seed, size: size, stop: make(chan struct{}), codes: map[string]int{},
		known: map[ids.ID]int64{}, members: map[ids.ID][]*peer.Device{}}
}

// problem notes what no model looks at and must not happen.
func (w *World) problem(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.problems) < 20 {
		w.problems = append(w.problems, fmt.Sprintf(format, args...))
	}
}

// Problems are what no model looks at and must not happen.
func (w *World) Problems() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.problems...)
}

// Codes counts the answers that were errors.
func (w *World) Codes() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := make(map[string]int, len(w.codes))
	for k, v := range w.codes {
		c[k] = v
	}
	return c
}

// stopped says that nothing new is to begin.
func (w *World) stopped() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

// unsettled says that a channel may get another group.
func (w *World) unsettled(channel ids.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.known, channel)
}

// established notes that a channel has a group with these devices: from now on a subscription of theirs has it.
func (w *World) established(channel ids.ID, devices []*peer.Device) {
	now := w.rec.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known[channel], w.members[channel] = now, devices
}

// channelsOf are those that were established before a time and have the device.
func (w *World) channelsOf(device *peer.Device, before int64) (list []ids.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for channel, since := range w.known {
		for _, d := range w.members[channel] {
			if d == device && since < before {
				list = append(list, channel)
			}
		}
	}
	return list
}

// dice are a client's own.
func (w *World) dice(client int) *rand.Rand {
	return rand.New(rand.NewPCG(w.seed, uint64(client)+100)) //nolint:gosec // a test's dice.
}

// fingerprint is a short name for bytes.
func fingerprint(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
