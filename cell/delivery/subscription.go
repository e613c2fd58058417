package delivery

import (
	"context"
	"errors"
	"slices"
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
	pageBytes       = 8 << 20  // Their payload.
	readRetry       = time.Second
)

// ErrReplaced ends a subscription when a newer one of the same device begins.
var ErrReplaced = errors.New("replaced by a newer subscription of the same device")

// Pusher sends one push to the device; it may wait, and fails when the connection ends.
type Pusher func(ctx context.Context, p wire.Push) error

// Subscription is one device's stream of deliveries: first what is stored, then what comes.
type Subscription struct {
	hub    *Hub
	device ids.ID
	credit int
	push   Pusher
	wake   chan struct{} // One token: something below changed.
	cancel context.CancelCauseFunc

	mu           sync.Mutex
	positions    map[ids.ID]*position
	order        []ids.ID // Of positions: the inbox first, then as they came.
	mailbox      []*store.Message
	mailboxSize  int
	inFlight     int
	inFlightSize int
}

// position is how far one channel has been pushed.
type position struct {
	sent    uint64 // Last sequence pushed, or known to need none.
	prev    uint64 // Last sequence pushed in this subscription.
	stored  uint64 // The channel's end as far as is known; beyond sent: read the database.
	pending []flying
}

// flying is a delivery that is not acknowledged.
type flying struct {
	seq  uint64
	size int
}

// Subscribe makes a device's subscription and ends an earlier one. credit is the most deliveries in flight.
func (h *Hub) Subscribe(device ids.ID, credit int, push Pusher) *Subscription {
	s := &Subscription{hub: h, device: device, credit: credit, push: push, wake: make(chan struct{}, 1),
		positions: map[ids.ID]*position{}, cancel: func(error) {}}
	return s
}

// Run pushes until ctx ends, the connection fails or a newer subscription takes over (ErrReplaced).
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
	if err := s.retry(ctx, s.load); err != nil {
		return err
	}
	caughtUp, pushed := false, uint64(0)
	for {
		n, err := s.catchUp(ctx)
		if err != nil {
			return err
		}
		pushed += n
		if !caughtUp {
			caughtUp = true
			if err := s.push(ctx, &wire.CaughtUp{Deliveries: pushed}); err != nil {
				return err
			}
		}
		if err := s.live(ctx); err != nil {
			return err
		}
	}
}

// retry repeats a read of the database until it succeeds: a database that is away pauses the stream.
func (s *Subscription) retry(ctx context.Context, read func(context.Context) error) error {
	for {
		err := read(ctx)
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		s.hub.log.WarnContext(ctx, "reading for a subscription failed; trying again", "device", s.device, "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(readRetry):
		}
	}
}

// load reads the device's cursors and follows channels that are new to this subscription. The subscription is
// registered before the first read, so that what is stored meanwhile is announced.
func (s *Subscription) load(ctx context.Context) error {
	s.hub.flushAcks(ctx) // What this process knows as acknowledged is not sent again.
	cursors, err := s.hub.store.Cursors(ctx, s.device)
	if err != nil {
		return err
	}
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if s.hub.devices[s.device] != s {
		return nil // Replaced; its context is ending.
	}
	for _, c := range cursors {
		s.hub.follow(s, c.ChannelID, c.AckedSeq)
		s.behind(c.ChannelID, c.LastSeq)
	}
	return nil
}

// follow starts a channel at after; of a channel that is followed already it only moves the start forward while
// nothing has been pushed.
func (s *Subscription) follow(channel ids.ID, after uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.positions[channel]
	if !ok {
		p = &position{sent: after, stored: after}
		s.positions[channel] = p
		s.order = append(s.order, channel)
	}
	if p.prev == 0 && after > p.sent {
		p.sent, p.stored = after, max(p.stored, after)
	}
}

// behind notes a channel's end as the database has it.
func (s *Subscription) behind(channel ids.ID, stored uint64) {
	s.mu.Lock()
	if p, ok := s.positions[channel]; ok && stored > p.stored {
		p.stored = stored
	}
	s.mu.Unlock()
	s.signal()
}

// post puts a stored message into the mailbox; from a full one it is left to be read from the database.
func (s *Subscription) post(m *store.Message) {
	s.mu.Lock()
	if p, ok := s.positions[m.ChannelID]; ok {
		p.stored = max(p.stored, m.Seq)
		if len(s.mailbox) < mailboxMessages && s.mailboxSize+len(m.Payload) <= mailboxBytes {
			s.mailbox = append(s.mailbox, m)
			s.mailboxSize += len(m.Payload)
		}
	}
	s.mu.Unlock()
	s.signal()
}

func (s *Subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Subscription) channels() []ids.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.order)
}

// live pushes from the mailbox until some channel needs the database.
func (s *Subscription) live(ctx context.Context) error {
	for {
		m, mustRead := s.next()
		if mustRead {
			return nil
		}
		if m == nil {
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

// next takes the mailbox's first message that is its channel's next. With an empty mailbox it reports whether some
// channel goes on beyond what was pushed.
func (s *Subscription) next() (m *store.Message, mustRead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.mailbox) > 0 {
		m := s.mailbox[0]
		p := s.positions[m.ChannelID]
		if m.Seq > p.sent+1 {
			return nil, true // Something before it is missing here.
		}
		s.mailbox[0] = nil
		s.mailbox = s.mailbox[1:]
		s.mailboxSize -= len(m.Payload)
		if m.Seq == p.sent+1 {
			return m, false
		}
	}
	s.mailbox = nil
	for _, p := range s.positions {
		if p.stored > p.sent {
			return nil, true
		}
	}
	return nil, false
}

// catchUp pushes from the database until no channel has more, and returns how many deliveries that were.
func (s *Subscription) catchUp(ctx context.Context) (n uint64, err error) {
	for {
		channel, after, ok := s.unread()
		if !ok {
			return n, nil
		}
		k, err := s.readOn(ctx, channel, after)
		n += k
		if err != nil {
			return n, err
		}
	}
}

// unread returns the first channel, the inbox before all others, whose end lies beyond what was pushed.
func (s *Subscription) unread() (channel ids.ID, after uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.order {
		if p := s.positions[c]; p.stored > p.sent {
			return c, p.sent, true
		}
	}
	return ids.ID{}, 0, false
}

// readOn pushes one page of a channel.
func (s *Subscription) readOn(ctx context.Context, channel ids.ID, after uint64) (n uint64, err error) {
	end := s.end(channel)
	var page []*store.Message
	if err := s.retry(ctx, func(ctx context.Context) (err error) {
		page, err = s.hub.store.ReadMessages(ctx, channel, after, pageMessages, pageBytes, s.hub.now())
		return err
	}); err != nil {
		return 0, err
	}
	for _, m := range page {
		if err := s.deliver(ctx, m, "stored"); err != nil {
			return n, err
		}
		n++
	}
	if len(page) == 0 {
		s.skip(channel, end) // The rest has expired.
	}
	return n, nil
}

func (s *Subscription) end(channel ids.ID) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.positions[channel].stored
}

func (s *Subscription) skip(channel ids.ID, seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.positions[channel]
	p.sent = max(p.sent, seq)
}

// deliver waits for credit and pushes one message.
func (s *Subscription) deliver(ctx context.Context, m *store.Message, path string) error {
	size := len(m.Payload)
	if m.SenderID == s.device {
		size = 0
	}
	prev, err := s.reserve(ctx, m, size)
	if err != nil {
		return err
	}
	d := delivery(m, prev)
	if m.SenderID == s.device {
		d.Kind, d.Payload = wire.KindOwn, nil
	}
	if err := s.push(ctx, d); err != nil {
		return err
	}
	s.hub.metrics.Deliveries.WithLabelValues(path).Inc()
	if m.Kind == store.MessageWelcome && !s.follows(m.AboutChannel) {
		return s.retry(ctx, s.load) // The Welcome was stored by another replica: its channel is new here.
	}
	return nil
}

func (s *Subscription) follows(channel ids.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.positions[channel]
	return ok
}

// reserve takes credit for a message, moves its channel's position and returns the sequence pushed before it.
func (s *Subscription) reserve(ctx context.Context, m *store.Message, size int) (prev uint64, err error) {
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

func (s *Subscription) tryReserve(m *store.Message, size int) (prev uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inFlight >= s.credit || s.inFlight > 0 && s.inFlightSize+size > creditBytes {
		return 0, false
	}
	s.inFlight++
	s.inFlightSize += size
	p := s.positions[m.ChannelID]
	prev = p.prev
	p.sent, p.prev, p.stored = m.Seq, m.Seq, max(p.stored, m.Seq)
	p.pending = append(p.pending, flying{m.Seq, size})
	return prev, true
}

// Ack takes cumulative acknowledgements, all or none: one beyond what was pushed refuses the whole request.
func (s *Subscription) Ack(acks []wire.Ack) error {
	s.mu.Lock()
	for _, a := range acks {
		if p, ok := s.positions[a.ChannelID]; !ok || a.Seq > p.sent {
			s.mu.Unlock()
			return wire.Errorf(wire.CodeInvalidCursor, "sequence %d of channel %s was not delivered here", a.Seq, a.ChannelID)
		}
	}
	for _, a := range acks {
		s.settle(s.positions[a.ChannelID], a.Seq)
	}
	s.mu.Unlock()
	for _, a := range acks {
		s.hub.acknowledge(s.device, a.ChannelID, a.Seq)
	}
	s.signal()
	return nil
}

// settle needs s.mu.
func (s *Subscription) settle(p *position, seq uint64) {
	i := 0
	for ; i < len(p.pending) && p.pending[i].seq <= seq; i++ {
		s.inFlight--
		s.inFlightSize -= p.pending[i].size
	}
	p.pending = p.pending[i:]
}

var kinds = map[store.MessageKind]wire.DeliveryKind{
	store.MessageApplication: wire.KindApplication,
	store.MessageCommit:      wire.KindCommit,
	store.MessageProposal:    wire.KindProposal,
	store.MessageWelcome:     wire.KindWelcome,
}

func delivery(m *store.Message, prev uint64) *wire.Delivery {
	return &wire.Delivery{ChannelID: m.ChannelID, Seq: m.Seq, PrevSeq: prev, Kind: kinds[m.Kind], Generation: m.Generation,
		SenderAccountID: m.SenderAccount, SenderDeviceID: m.SenderID, DeliveryID: m.DeliveryID,
		AcceptedAt: m.AcceptedAt, Payload: m.Payload, AboutChannelID: m.AboutChannel}
}
