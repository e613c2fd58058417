package delivery

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
)

// A step is one thing that happens to a cell. The numbers choose among what there is.
type step struct {
	do   int
	n, m int
}

const (
	sendHere      = iota // Through the Lane.
	sendElsewhere        // By another replica: nobody here is told.
	subscribeAgain
	acknowledge
	disconnect
	joinHere      // A channel is made here: Follow and a Welcome.
	joinElsewhere // By another replica.
	expire
	pullPlug
	plugIn
	wait
	steps
)

// history is a world with devices, and what has been delivered to each over all its subscriptions.
type history struct {
	w        *world
	devices  []ids.ID
	channels []ids.ID
	readers  map[ids.ID]*reader
	handled  map[ids.ID]map[ids.ID]uint64 // Device, channel: as a client remembers it.
	problems []string
}

func (h *history) complain(format string, args ...any) {
	h.problems = append(h.problems, fmt.Sprintf(format, args...))
}

// collect takes what was pushed as a client does: skip what was handled, and miss nothing.
func (h *history) collect(device ids.ID) {
	r := h.readers[device]
	if r == nil {
		return
	}
	r.mu.Lock()
	got := r.got
	r.mu.Unlock()
	prev := map[ids.ID]uint64{}
	for _, d := range got {
		if d.PrevSeq != prev[d.ChannelID] || d.Seq <= d.PrevSeq {
			h.complain("device %s, channel %s: %d after %d, but %d was the one before", device, d.ChannelID, d.Seq, d.PrevSeq, prev[d.ChannelID])
		}
		prev[d.ChannelID] = d.Seq
		h.handle(device, d.ChannelID, d.Seq)
	}
}

func (h *history) handle(device, channel ids.ID, seq uint64) {
	last := h.handled[device][channel]
	if seq <= last {
		return // Delivered again.
	}
	h.w.store.mu.Lock()
	defer h.w.store.mu.Unlock()
	for missed := last + 1; missed < seq; missed++ {
		if !h.w.store.expired[h.w.store.channels[channel][missed-1]] {
			h.complain("device %s, channel %s: %d came, %d never did", device, channel, seq, missed)
		}
	}
	h.handled[device][channel] = seq
}

func (h *history) disconnect(device ids.ID) {
	if r := h.readers[device]; r != nil {
		synctest.Wait()
		h.collect(device)
		r.cancel()
		<-r.ended //nolint:errcheck // Only its end matters.
		delete(h.readers, device)
	}
}

func (h *history) run(s step) {
	device, channel := h.devices[s.n%len(h.devices)], h.channels[s.m%len(h.channels)]
	switch s.do {
	case sendHere:
		m := message(channel, s.n)
		m.SenderID = device
		_ = h.w.lane.Submit(&store.Append{Message: *m}, func(*store.Append, error) {})
	case sendElsewhere:
		h.w.store.put(message(channel, s.n))
	case subscribeAgain:
		old := h.readers[device]
		h.readers[device] = h.w.subscribe(device, 1+s.m%8, false)
		synctest.Wait()
		if old != nil {
			<-old.ended //nolint:errcheck // Only its end matters.
			h.readers[device], old = old, h.readers[device]
			h.collect(device)
			h.readers[device] = old
		}
	case acknowledge:
		if r := h.readers[device]; r != nil {
			h.collect(device)
			if err := r.ackAll(); err != nil {
				h.complain("%v", err)
			}
		}
	case disconnect:
		h.disconnect(device)
	case joinHere, joinElsewhere:
		h.join(device, s.do == joinHere)
	case expire:
		h.w.store.mu.Lock()
		if all := h.w.store.channels[channel]; len(all) > 0 {
			h.w.store.expired[all[s.n%len(all)]] = true
		}
		h.w.store.mu.Unlock()
	case pullPlug:
		h.w.store.setAway(true)
	case plugIn:
		h.w.store.setAway(false)
	case wait:
		time.Sleep(time.Duration(s.n) * 20 * time.Millisecond)
	}
}

// join makes a channel that the device is in, with its Welcome.
func (h *history) join(device ids.ID, here bool) {
	c := ids.New()
	h.channels = append(h.channels, c)
	h.w.store.join(device, c)
	welcome := message(device, 1)
	welcome.Kind, welcome.AboutChannel = store.MessageWelcome, c
	h.w.store.put(welcome)
	if here {
		h.w.hub.Follow(c, 0, []ids.ID{device})
		h.w.hub.Announce([]*store.Message{welcome})
	}
}

// finish lets everything settle, every device subscribed, and checks that each has everything.
func (h *history) finish() {
	h.w.store.setAway(false)
	for _, d := range h.devices {
		if h.readers[d] == nil {
			h.readers[d] = h.w.subscribe(d, 8, false)
		}
	}
	for range 200 {
		time.Sleep(pollEvery / 4)
		synctest.Wait()
		for _, d := range h.devices {
			h.collect(d)
			if err := h.readers[d].ackAll(); err != nil {
				h.complain("%v", err)
			}
		}
	}
	for _, d := range h.devices {
		if n := len(h.readers[d].marks()); n != 1 {
			h.complain("device %s: %d CaughtUp in one subscription", d, n)
		}
		h.complete(d)
		h.disconnect(d)
	}
}

func (h *history) complete(device ids.ID) {
	h.w.store.mu.Lock()
	defer h.w.store.mu.Unlock()
	for channel := range h.w.store.cursors[device] {
		all := h.w.store.channels[channel]
		for len(all) > 0 && h.w.store.expired[all[len(all)-1]] {
			all = all[:len(all)-1]
		}
		if got := h.handled[device][channel]; got < uint64(len(all)) {
			h.complain("device %s, channel %s: %d of %d came", device, channel, got, len(all))
		}
	}
}

// Whatever happens, in whatever order: a device that keeps coming back handles every message of its channels once, in
// order, unless it expired.
func TestEveryMessageOnceInOrder(t *testing.T) {
	t.Parallel()
	one := rapid.Custom(func(t *rapid.T) step {
		return step{rapid.IntRange(0, steps-1).Draw(t, "do"), rapid.IntRange(0, 60).Draw(t, "n"), rapid.IntRange(0, 60).Draw(t, "m")}
	})
	rapid.Check(t, func(rt *rapid.T) {
		script := rapid.SliceOfN(one, 1, 60).Draw(rt, "script")
		var problems []string
		synctest.Test(t, func(t *testing.T) { problems = play(t, script) })
		for _, p := range problems {
			rt.Error(p)
		}
	})
}

func play(t *testing.T, script []step) []string {
	h := &history{w: newWorld(t), devices: []ids.ID{bob, carol, id(3)}, channels: []ids.ID{id(10), id(11)},
		readers: map[ids.ID]*reader{}, handled: map[ids.ID]map[ids.ID]uint64{}}
	for _, d := range h.devices {
		h.handled[d] = map[ids.ID]uint64{}
		for _, c := range h.channels {
			h.w.store.join(d, c)
		}
	}
	for _, s := range script {
		h.run(s)
	}
	h.finish()
	h.w.close()
	return h.problems
}
