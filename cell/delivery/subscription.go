package delivery

import (
	"context"
	"errors"
	"sync"
	"time"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

const (
	mailboxMessages = 512      // Live messages that wait in memory for one device.
	mailboxBytes    = 4 << 20  // Their payload.
	creditBytes     = 16 << 20 // Payload in flight, unacknowledged, unless one message alone is larger.
	pageMessages    = 64       // Messages per read.
	pageBytes       = 1 << 20  // Their payload, unless the first alone is larger.
	readRetry       = time.Second
	readPatience    = 10 * time.Second // For one read.
	holdTime        = time.Minute      // Until a channel with an unreadable row is tried again.
)

// ErrReplaced ends a subscription when a newer one of the same device begins.
var ErrReplaced = errors.New("replaced by a newer subscription of the same device")

// Pusher sends to the device.
type Pusher interface {
	// Push may wait, and fails when the connection ends.
	Push(ctx context.Context, p wire.Push) error
	// TryPush reports whether the push was taken. It does not wait, and takes no lock that is held while this package is
	// called.
	TryPush(p wire.Push) bool
}

// Subscription is one device's stream of deliveries: first what is stored, then what comes.
//
// Run's goroutine pushes; others note what there is to do and wake it, but for live messages while it is idle, which
// they push themselves.
type Subscription struct {
	hub    *Hub
	device ids.ID
	credit int
	push   Pusher
	wake   chan struct{} // One token: something below changed.
	noted  bool          // The client knows notices.
	cancel context.CancelCauseFunc

	// Of Run's goroutine.
	caughtUp bool     // CaughtUp has been pushed.
	unasked  []ids.ID // Channels that are followed, and whose end was not read since.

	taking sync.Mutex // Held while the number is taken; before mu.

	mu           sync.Mutex
	number       uint64 // As the store counts the device's; 0: not known yet.
	positions    map[ids.ID]*position
	toLook       map[ids.ID]struct{}  // Among them are all that have to be read: a device may follow very many.
	held         int                  // Of positions: how many are held back.
	order        []ids.ID             // Of positions: the inbox first, then as they came.
	turn         int                  // In order: where to look first for what is unread.
	reload       bool                 // The device may read channels that are not followed.
	low          *wire.KeyPackagesLow // To be told.
	lowTold      bool                 // It was, or is about to be.
	mailbox      []announced
	mailboxSize  int
	idle         bool   // Run's goroutine has pushed all that there was and waits.
	pushed       uint64 // Deliveries. Of Run's goroutine, but while it is idle.
	inFlight     int
	inFlightSize int
}

// Subscribe makes a device's subscription; its Run ends an earlier one. credit is the most deliveries in flight.
func (h *Hub) Subscribe(device ids.ID, credit int, push Pusher) *Subscription {
	s := &Subscription{hub: h, device: device, credit: credit, push: push, wake: make(chan struct{}, 1), cancel: func(error) {}}
	s.positions = map[ids.ID]*position{device: {}} // Where the inbox stands, its cursor will tell.
	s.toLook = map[ids.ID]struct{}{}
	s.order = []ids.ID{device}
	return s
}

// WithNotices has notices pushed too, which are passed over otherwise. Call it before Run.
func (s *Subscription) WithNotices() { s.noted = true }

// Run pushes until ctx ends, the connection fails or a newer subscription takes over, at whichever process (ErrReplaced).
func (s *Subscription) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.cancel = cancel
	if old := s.hub.add(s); old != nil {
		old.cancel(ErrReplaced)
	}
	defer s.hub.remove(s)
	err := s.run(ctx)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// run returns when the context ends or a push fails: always with an error.
func (s *Subscription) run(ctx context.Context) error {
	s.begin(ctx)
	if err := s.retry(ctx, s.load); err != nil {
		return err
	}
	for {
		if err := s.catchUp(ctx); err != nil {
			return err
		}
		if err := s.live(ctx); err != nil {
			return err
		}
	}
}

// retry repeats a read of the database until it succeeds: a database that is away pauses the stream.
func (s *Subscription) retry(ctx context.Context, read func(context.Context) error) error {
	for failed := false; ; failed = true {
		err := withPatience(ctx, read)
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if !failed { // Once: every subscription is in the same boat.
			s.hub.log.WarnContext(ctx, "reading for a subscription failed; it goes on when the database does", "device", s.device, "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(readRetry):
		}
	}
}

func withPatience(ctx context.Context, read func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	return read(ctx)
}

// load follows the channels of the device's cursors. What is stored between the read of the cursors and the moment
// when a channel is followed is announced to nobody here; so the channels' ends are read once more after it.
func (s *Subscription) load(ctx context.Context) error {
	s.hub.flushAcks(ctx) // What this process knows as acknowledged is not sent again.
	cursors, err := s.hub.store.Cursors(ctx, s.device)
	if err != nil {
		return err
	}
	s.unasked = append(s.unasked, s.hub.adopt(s, cursors)...)
	ends, err := s.hub.lastSeqs(ctx, s.unasked)
	for channel, seq := range ends {
		s.behind(channel, seq)
	}
	if err == nil {
		s.unasked = nil
	}
	return err
}

// live pushes from the mailbox until something has to be read from the database.
func (s *Subscription) live(ctx context.Context) error {
	for {
		if err := s.tellLow(ctx); err != nil {
			return err
		}
		m, mustRead := s.next()
		if mustRead {
			return nil
		}
		if m.Message == nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-s.wake:
			}
			continue
		}
		if err := s.deliver(ctx, m, "live"); err != nil {
			return err
		}
		s.hub.metrics.DeliveryLag.Observe(s.hub.now().Sub(m.AcceptedAt).Seconds())
	}
}

// catchUp pushes from the database, a page of each channel in turn, until no channel has more.
func (s *Subscription) catchUp(ctx context.Context) error {
	for {
		if s.takeReload() {
			if err := s.retry(ctx, s.load); err != nil {
				return err
			}
		}
		if err := s.tellCaughtUp(ctx); err != nil {
			return err
		}
		channel, after, end, ok := s.unread()
		if !ok {
			return nil
		}
		if err := s.readOn(ctx, channel, after, end); err != nil {
			return err
		}
	}
}

// tellCaughtUp pushes the marker once everything that was stored at the beginning has been pushed.
func (s *Subscription) tellCaughtUp(ctx context.Context) error {
	if s.caughtUp || !s.reachedGoals() {
		return nil
	}
	s.caughtUp = true
	return s.push.Push(ctx, &wire.CaughtUp{Deliveries: s.pushed})
}

// readOn pushes one page of a channel, which is known to reach to end.
func (s *Subscription) readOn(ctx context.Context, channel ids.ID, after, end uint64) error {
	var page []*store.Message
	var broken error
	if err := s.retry(ctx, func(ctx context.Context) (err error) {
		page, err = s.hub.store.ReadMessages(ctx, channel, after, pageMessages, pageBytes, s.hub.now())
		if err != nil && !errors.Is(err, store.ErrUnavailable) {
			broken, err = err, nil // Reading again would not help.
		}
		return err
	}); err != nil {
		return err
	}
	for _, m := range page {
		if err := s.tellBehind(ctx, channel, s.sentOf(channel), m.Seq-1); err != nil {
			return err
		}
		if !s.mayRead(m) {
			return nil
		}
		if err := s.deliver(ctx, announced{m, nil}, "stored"); err != nil {
			return err
		}
	}
	switch {
	case broken != nil:
		s.holdBack(ctx, channel, broken)
	case len(page) == 0:
		s.skip(channel, end) // The rest has expired.
		return s.tellBehind(ctx, channel, after, end)
	}
	return nil
}

// tellBehind says that what comes after one sequence up to another is gone for the device. A Commit that removed it may
// have been among that.
func (s *Subscription) tellBehind(ctx context.Context, channel ids.ID, after, upTo uint64) error {
	if upTo <= after {
		return nil
	}
	if channel != s.device {
		if err := s.retry(ctx, func(ctx context.Context) error { return s.reread(ctx, channel) }); err != nil {
			return err
		}
	}
	if !s.noted || s.hasEnded(channel) {
		return nil
	}
	s.hub.metrics.DevicesBehind.Inc()
	return s.push.Push(ctx, &wire.Behind{ChannelID: channel, Seq: upTo})
}

// holdBack stops a channel before a row that cannot be read. To go on behind it would lose a message without anybody
// noticing; the other channels go on.
func (s *Subscription) holdBack(ctx context.Context, channel ids.ID, why error) {
	after := s.hold(channel, s.hub.now().Add(holdTime))
	s.hub.metrics.DeliveriesHeld.Inc()
	s.hub.log.ErrorContext(ctx, "a stored message cannot be read; its channel is held back from the device until the row is repaired or deleted",
		"device", s.device, "channel", channel, "after", after, "retry", holdTime, "error", why)
}

// deliver waits for credit and pushes one message.
func (s *Subscription) deliver(ctx context.Context, m announced, path string) error {
	if m.Kind == store.MessageNotice && !s.noted {
		s.skip(m.ChannelID, m.Seq)
		return nil
	}
	if s.begins(m.Message) {
		if err := s.retry(ctx, func(ctx context.Context) error { return s.reread(ctx, m.ChannelID) }); err != nil || !s.mayRead(m.Message) {
			return err
		}
	}
	size := len(m.Payload)
	if m.SenderID == s.device {
		size = 0
	}
	prev, err := s.reserve(ctx, m.Message, size)
	if err != nil {
		return err
	}
	if err := s.push.Push(ctx, s.as(m, prev)); err != nil {
		return err
	}
	s.sent(path)
	switch {
	case m.Kind == store.MessageWelcome && !s.reads(m.AboutChannel):
		s.askReload() // The Welcome was stored by another replica: its channel is new here, or goes on.
	case removes(m.Message):
		return s.retry(ctx, func(ctx context.Context) error { return s.reread(ctx, m.ChannelID) })
	}
	return nil
}

// as is a message as the device is pushed it.
func (s *Subscription) as(m announced, prev uint64) *wire.Delivery {
	own := m.SenderID == s.device
	if m.whole != nil && m.whole.PrevSeq == prev && !own {
		return m.whole
	}
	d := delivery(m.Message, prev)
	if own {
		d.Kind, d.Payload = wire.KindOwn, nil
	}
	return d
}

// sent counts a delivery that was pushed.
func (s *Subscription) sent(path string) {
	s.pushed++
	s.hub.metrics.Deliveries.WithLabelValues(path).Inc()
}

// removes reports whether a message is a Commit that has removed devices: perhaps this one.
func removes(m *store.Message) bool {
	return m.Kind == store.MessageCommit && m.AboutChannel == m.ChannelID
}

// reread asks up to where the device may read a channel.
func (s *Subscription) reread(ctx context.Context, channel ids.ID) error {
	c, err := s.hub.store.CursorOf(ctx, s.device, channel)
	none := errors.Is(err, store.ErrNotFound)
	if err != nil && !none {
		return err
	}
	s.rebound(channel, c, none)
	return nil
}

// reserve takes credit for a message, moves its channel's position and returns the sequence pushed before it.
func (s *Subscription) reserve(ctx context.Context, m *store.Message, size int) (prev uint64, err error) {
	if prev, ok := s.tryReserve(m, size); ok {
		return prev, nil
	}
	s.hub.metrics.SubscriptionsPaused.Inc()
	defer s.hub.metrics.SubscriptionsPaused.Dec()
	for {
		if prev, ok := s.tryReserve(m, size); ok {
			return prev, nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-s.wake:
		}
	}
}

// Ack takes cumulative acknowledgements, all or none: one beyond what was pushed refuses the whole request.
func (s *Subscription) Ack(acks []wire.Ack) error {
	if err := s.settleAll(acks); err != nil {
		return err
	}
	for _, a := range acks {
		s.hub.acknowledge(s.device, a.ChannelID, a.Seq)
	}
	s.signal()
	return nil
}

var kinds = map[store.MessageKind]wire.DeliveryKind{
	store.MessageApplication: wire.KindApplication,
	store.MessageCommit:      wire.KindCommit,
	store.MessageProposal:    wire.KindProposal,
	store.MessageWelcome:     wire.KindWelcome,
	store.MessageNotice:      wire.KindNotice,
}

func delivery(m *store.Message, prev uint64) *wire.Delivery {
	about := m.AboutChannel
	if m.Kind != store.MessageWelcome {
		about = ids.ID{}
	}
	return &wire.Delivery{ChannelID: m.ChannelID, Seq: m.Seq, PrevSeq: prev, Kind: kinds[m.Kind], Generation: m.Generation,
		SenderAccountID: m.SenderAccount, SenderDeviceID: m.SenderID, DeliveryID: m.DeliveryID,
		AcceptedAt: m.AcceptedAt, Payload: m.Payload, AboutChannelID: about}
}
