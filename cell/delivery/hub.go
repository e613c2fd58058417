package delivery

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/cell/telemetry"
	"quicproquo.dev/schema/ids"
)

const (
	pollEvery     = time.Second      // How late a message stored by another replica is noticed at the latest.
	recountEvery  = 15 * time.Second // How late a channel that a device began to read elsewhere is.
	pollChannels  = 1000             // Channels, or devices, per statement.
	pollAtOnce    = 2 * pollChannels // So many channels are polled each time; of more, where wake-ups work, a part.
	pollParts     = 15               // The most parts: how many times pollEvery a channel is noticed at the latest then.
	pollPatience  = 5 * time.Second  // For one statement.
	ackFlushEvery = 200 * time.Millisecond
	acksWaiting   = 1 << 18 // Cursors to be written, while the database is away; for what comes on top devices are sent again what they had.
)

// Hub knows the subscribed devices of this process and which channels they follow. It is safe for concurrent use.
//
// Lock order: Hub.mu before Subscription.mu; Hub.flushMu before Hub.ackMu.
type Hub struct {
	store   Store
	metrics *telemetry.Metrics
	log     *slog.Logger
	now     func() time.Time
	wakeups *Wakeups      // Nil: other processes find out by polling alone.
	pollNow chan struct{} // One token: wake-ups may have been missed.

	pollTurn int // Of Run's goroutine.

	mu        sync.Mutex
	devices   map[ids.ID]*Subscription
	followers map[ids.ID]map[*Subscription]struct{}

	flushMu sync.Mutex // Held through a flush; before ackMu.
	ackMu   sync.Mutex
	acks    map[ackKey]uint64
}

type ackKey struct{ device, channel ids.ID }

// NewHub returns a Hub; Run keeps it going.
func NewHub(s Store, m *telemetry.Metrics, log *slog.Logger, now func() time.Time) *Hub {
	return &Hub{store: s, metrics: m, log: log, now: now, devices: map[ids.ID]*Subscription{},
		followers: map[ids.ID]map[*Subscription]struct{}{}, acks: map[ackKey]uint64{}, pollNow: make(chan struct{}, 1)}
}

// UseWakeups has other processes told of what this one announces, and this one listen to them. Call it before
// anything else, and run what it returns.
func (h *Hub) UseWakeups(bus Bus) *Wakeups {
	h.wakeups = NewWakeups(bus, h.metrics, h.log, h.now, h.askPoll)
	h.wakeups.On(WakeupChannel, h.grown)
	h.wakeups.On(WakeupDevice, h.replaced)
	return h.wakeups
}

func (h *Hub) askPoll() {
	select {
	case h.pollNow <- struct{}{}:
	default:
	}
}

// grown takes another process's word that a channel reaches to seq.
func (h *Hub) grown(channel ids.ID, seq uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.followers[channel] {
		s.behind(channel, seq)
	}
}

// Run writes acknowledgements down and looks for what other replicas stored, until ctx ends; then it writes the
// last acknowledgements.
func (h *Hub) Run(ctx context.Context) {
	flush, poll, recount := time.NewTicker(ackFlushEvery), time.NewTicker(pollEvery), time.NewTicker(recountEvery)
	defer flush.Stop()
	defer poll.Stop()
	defer recount.Stop()
	for {
		select {
		case <-ctx.Done():
			h.flushAcks(context.WithoutCancel(ctx))
			return
		case <-flush.C:
			h.flushAcks(ctx)
		case <-poll.C:
			h.pollPart(ctx)
			h.findLow(ctx)
			if h.wakeups == nil || !h.wakeups.Working() {
				h.findReplaced(ctx)
			}
			h.release()
		case <-h.pollNow:
			h.poll(ctx)
		case <-recount.C:
			h.recount(ctx)
			h.findReplaced(ctx)
		}
	}
}

// Announce hands stored messages to the subscriptions that follow their channels, and has other processes told.
func (h *Hub) Announce(messages []*store.Message) {
	if h.wakeups != nil {
		for _, m := range messages {
			h.wakeups.Tell(WakeupChannel, m.ChannelID, m.Seq)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range messages {
		followers := h.followers[m.ChannelID]
		one := encoded(m, len(followers), len(messages))
		for s := range followers {
			s.post(one)
		}
	}
}

// Follow lets the devices among the subscribed ones read channel from after, unless they read it already.
func (h *Hub) Follow(channel ids.ID, after uint64, devices []ids.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range devices {
		if s, ok := h.devices[d]; ok {
			s.follow(channel, after)
			s.signal()
		}
	}
}

// addFollower needs h.mu.
func (h *Hub) addFollower(s *Subscription, channel ids.ID) {
	set, ok := h.followers[channel]
	if !ok {
		set = map[*Subscription]struct{}{}
		h.followers[channel] = set
	}
	set[s] = struct{}{}
}

// add registers s and returns the subscription of the same device that it replaces, if any.
func (h *Hub) add(s *Subscription) *Subscription {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.devices[s.device]
	if old != nil {
		h.drop(old)
	}
	h.devices[s.device] = s
	h.addFollower(s, s.device)
	h.metrics.Subscriptions.Set(float64(len(h.devices)))
	return old
}

// adopt lets s follow the channels of its cursors, and returns those that it did not follow before.
func (h *Hub) adopt(s *Subscription, cursors []store.Cursor) []ids.ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.devices[s.device] != s {
		return nil // Replaced; its context is ending.
	}
	var fresh []ids.ID
	for _, c := range cursors {
		if s.adopt(c) {
			h.addFollower(s, c.ChannelID)
			fresh = append(fresh, c.ChannelID)
		}
	}
	return fresh
}

func (h *Hub) remove(s *Subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(s)
	if h.devices[s.device] == s {
		delete(h.devices, s.device)
	}
	h.metrics.Subscriptions.Set(float64(len(h.devices)))
}

// drop needs h.mu.
func (h *Hub) drop(s *Subscription) {
	for _, channel := range s.channels() {
		delete(h.followers[channel], s)
		if len(h.followers[channel]) == 0 {
			delete(h.followers, channel)
		}
	}
}

// acknowledge notes a cursor to be written with the next flush.
func (h *Hub) acknowledge(device, channel ids.ID, seq uint64) {
	h.ackMu.Lock()
	defer h.ackMu.Unlock()
	key := ackKey{device, channel}
	before, there := h.acks[key]
	if !there && len(h.acks) >= acksWaiting {
		h.metrics.AcksDropped.Inc()
		return
	}
	h.acks[key] = max(before, seq)
	h.metrics.AcksWaiting.Set(float64(len(h.acks)))
}

// takeAcks returns the noted cursors and forgets them.
func (h *Hub) takeAcks() map[ackKey]uint64 {
	h.ackMu.Lock()
	defer h.ackMu.Unlock()
	if len(h.acks) == 0 {
		return nil
	}
	noted := h.acks
	h.acks = make(map[ackKey]uint64, len(noted))
	h.metrics.AcksWaiting.Set(0)
	return noted
}

// flushAcks writes the noted cursors now, after any flush that is under way.
func (h *Hub) flushAcks(ctx context.Context) {
	h.flushMu.Lock()
	defer h.flushMu.Unlock()
	noted := h.takeAcks()
	if len(noted) == 0 {
		return
	}
	rows := make([]store.Ack, 0, len(noted))
	for k, seq := range noted {
		rows = append(rows, store.Ack{DeviceID: k.device, ChannelID: k.channel, Seq: seq})
	}
	ctx, cancel := context.WithTimeout(ctx, commitPatience)
	defer cancel()
	if err := h.store.Acknowledge(ctx, rows); err != nil {
		h.log.WarnContext(ctx, "writing acknowledgements failed; they are kept", "rows", len(rows), "error", err)
		for _, r := range rows {
			h.acknowledge(r.DeviceID, r.ChannelID, r.Seq)
		}
	}
}

// pollPart polls all channels, or of very many, which processes tell each other of, those whose turn it is.
func (h *Hub) pollPart(ctx context.Context) {
	channels := h.followed()
	parts := 1
	if h.wakeups != nil && h.wakeups.Working() {
		parts = min(1+len(channels)/pollAtOnce, pollParts)
	}
	h.pollTurn++
	h.pollThese(ctx, slices.DeleteFunc(channels, func(id ids.ID) bool { return (int(id[0])<<8+int(id[1])+h.pollTurn)%parts != 0 }))
}

// poll finds channels that have grown without this process hearing of it.
func (h *Hub) poll(ctx context.Context) { h.pollThese(ctx, h.followed()) }

func (h *Hub) followed() []ids.ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Keys(h.followers))
}

func (h *Hub) pollThese(ctx context.Context, channels []ids.ID) {
	seqs, err := h.lastSeqs(ctx, channels)
	if err != nil {
		h.log.WarnContext(ctx, "polling channels failed", "error", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for channel, seq := range seqs {
		for s := range h.followers[channel] {
			s.behind(channel, seq)
		}
	}
}

// lastSeqs asks for any number of channels. With an error come those that could be read.
func (h *Hub) lastSeqs(ctx context.Context, channels []ids.ID) (map[ids.ID]uint64, error) {
	return inParts(ctx, channels, h.store.LastSeqs)
}

// recount finds devices that have begun to read a channel, or do so again, without this process hearing of it: their own
// connection to another replica created its group, or joined it.
func (h *Hub) recount(ctx context.Context) {
	h.mu.Lock()
	devices := slices.Collect(maps.Keys(h.devices))
	h.mu.Unlock()
	counts, err := inParts(ctx, devices, h.store.ChannelCounts)
	if err != nil {
		h.log.WarnContext(ctx, "counting channels failed", "error", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for d, n := range counts {
		if s, ok := h.devices[d]; ok && n > s.open() {
			s.askReload()
		}
	}
}

// release lets subscriptions try the channels again that were held back long enough.
func (h *Hub) release() {
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.devices {
		s.release(now)
	}
}

// inParts calls read for a bounded number of ids at a time and gathers the answers, up to the first error.
func inParts[V any](ctx context.Context, all []ids.ID, read func(context.Context, []ids.ID) (map[ids.ID]V, error)) (map[ids.ID]V, error) {
	got := make(map[ids.ID]V, len(all))
	for part := range slices.Chunk(all, pollChannels) {
		some, err := readPart(ctx, part, read)
		if err != nil {
			return got, err
		}
		maps.Copy(got, some)
	}
	return got, nil
}

func readPart[V any](ctx context.Context, part []ids.ID, read func(context.Context, []ids.ID) (map[ids.ID]V, error)) (map[ids.ID]V, error) {
	ctx, cancel := context.WithTimeout(ctx, pollPatience)
	defer cancel()
	return read(ctx, part)
}
