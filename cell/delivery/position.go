package delivery

import (
	"slices"
	"time"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// position is how far one channel has been pushed.
type position struct {
	begun     bool      // sent is where the device's cursor stood.
	sent      uint64    // Last sequence pushed, or known to need none.
	prev      uint64    // Last sequence pushed in this subscription.
	stored    uint64    // The channel's end as far as is known; beyond sent: read the database.
	goal      uint64    // The channel's end when the subscription began.
	unsure    bool      // There may be more than stored: read the database once.
	heldUntil time.Time // A row after sent cannot be read; zero: all is well.
	until     uint64    // The last that the device may read, which was removed from the group then; 0: no such end.
	gaps      []uint64  // As store.Cursor has them.
	pending   []flying

	generation uint32 // Of the channel when until was read; 0: not known.
}

// flying is a delivery that is not acknowledged.
type flying struct {
	seq  uint64
	size int
}

func (p *position) held() bool { return !p.heldUntil.IsZero() }

// isNext reports whether a sequence is what is to be pushed next.
func (p *position) isNext(seq uint64) bool { return seq == p.sent+1 && !p.held() && !p.ended() }

// isLater reports whether a generation is later than that for which until is known.
func (p *position) isLater(generation uint32) bool {
	return p.generation > 0 && generation > p.generation
}

func (p *position) mustRead() bool {
	return !p.held() && !p.ended() && (p.unsure || p.stored > p.sent)
}

// ended reports whether the device has been pushed all that it may read.
func (p *position) ended() bool { return p.until > 0 && p.sent >= p.until }

// pass notes that the channel was pushed, or needs none, up to a sequence, and passes over a gap there.
func (p *position) pass(seq uint64) {
	p.sent = max(p.sent, seq)
	for i := 0; i+1 < len(p.gaps); i += 2 {
		if p.gaps[i] <= p.sent {
			p.sent = max(p.sent, p.gaps[i+1])
		}
	}
}

// gapOf returns the end of the gap that a sequence is in; 0: it is in none.
func (p *position) gapOf(seq uint64) uint64 {
	for i := 0; i+1 < len(p.gaps); i += 2 {
		if p.gaps[i] < seq && seq <= p.gaps[i+1] {
			return p.gaps[i+1]
		}
	}
	return 0
}

// follow has a channel's cursor read, unless it is followed already. A device that was removed from a group, and
// comes into it again, goes on behind after.
func (s *Subscription) follow(channel ids.ID, after uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look(channel)
	if p, ok := s.positions[channel]; ok {
		if p.ended() {
			p.until, p.stored, p.unsure = 0, max(p.stored, after), true
			p.pass(after)
		}
		return
	}
	s.reload = true // Its cursor tells where it goes on: the device may have read the channel before, and not to here.
}

// look notes that a channel may have to be read. It needs s.mu.
func (s *Subscription) look(channel ids.ID) { s.toLook[channel] = struct{}{} }

// anyUnread reports whether any channel has to be read, and forgets those noted that have not. It needs s.mu.
func (s *Subscription) anyUnread() bool {
	for channel := range s.toLook {
		if p, ok := s.positions[channel]; ok && p.mustRead() {
			return true
		}
		delete(s.toLook, channel)
	}
	return false
}

// place needs s.mu.
func (s *Subscription) place(channel ids.ID, p *position) {
	s.positions[channel] = p
	s.order = append(s.order, channel)
}

// adopt starts a channel where its cursor stands; false when it was followed already. The inbox is, from the first
// moment on, but only its cursor tells where it starts.
func (s *Subscription) adopt(c store.Cursor) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, known := s.positions[c.ChannelID]
	if !known {
		p = &position{}
		s.place(c.ChannelID, p)
	}
	if !p.begun {
		p.begun, p.sent = true, c.AckedSeq
	}
	p.bound(c)
	p.stored = max(p.stored, c.LastSeq, p.sent)
	s.look(c.ChannelID)
	if !s.caughtUp {
		p.goal = max(p.goal, c.LastSeq)
		if p.until > 0 {
			p.goal = min(p.goal, p.until)
		}
	}
	return !known
}

// bound takes from a cursor up to where the device may read, or that it begins anew.
func (p *position) bound(c store.Cursor) {
	p.until, p.gaps, p.generation = c.Until, c.Gaps, max(p.generation, c.Generation)
	p.pass(c.AckedSeq)
}

// rebound takes a channel's cursor as it is after a Commit that has removed devices. Without one the channel ends here.
func (s *Subscription) rebound(channel ids.ID, c store.Cursor, none bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.positions[channel]
	if none {
		c.Until = max(p.sent, 1) // 0 is no end; and if the device reads nothing yet, the first can only be its removal.
	}
	p.bound(c)
	s.look(channel)
}

// behind notes a channel's end as the database has it.
func (s *Subscription) behind(channel ids.ID, stored uint64) {
	s.mu.Lock()
	p, ok := s.positions[channel]
	news := ok && stored > p.stored
	if news {
		p.stored = stored
		s.look(channel)
	}
	s.mu.Unlock()
	if news {
		s.signal()
	}
}

// post pushes a stored message at once, or puts it into the mailbox; from a full one it is left to be read from the
// database.
func (s *Subscription) post(m announced) {
	if !s.pushOrKeep(m) {
		s.signal()
	}
}

// pushOrKeep reports whether the message was pushed; else Run's goroutine has something to do.
func (s *Subscription) pushOrKeep(m announced) (pushed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.positions[m.ChannelID]
	if !ok {
		return false
	}
	if s.pushNow(m, p) {
		return true
	}
	p.stored = max(p.stored, m.Seq)
	room := len(s.mailbox) < mailboxMessages && s.mailboxSize+len(m.Payload) <= mailboxBytes
	switch {
	case p.held():
	case room:
		s.mailbox = append(s.mailbox, m)
		s.mailboxSize += len(m.Payload)
	default:
		s.look(m.ChannelID)
		s.hub.metrics.MailboxFull.Inc()
	}
	return false
}

func (s *Subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Subscription) askReload() {
	s.mu.Lock()
	s.reload = true
	s.mu.Unlock()
	s.signal()
}

func (s *Subscription) takeReload() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := s.reload
	s.reload = false
	return wanted
}

func (s *Subscription) channels() []ids.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.order)
}

// reads reports whether a channel is followed, and not only up to where the device was removed from it.
func (s *Subscription) reads(channel ids.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.positions[channel]
	return ok && p.until == 0
}

// open counts the channels that are followed, and have not ended for the device.
func (s *Subscription) open() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.positions {
		if !p.ended() {
			n++
		}
	}
	return n
}

// next takes the mailbox's first message that is its channel's next. It reports when the database has to be read
// instead: for what comes before that message, or, with an empty mailbox, for a channel that goes on. If there is neither,
// the subscription is idle until next is called again.
func (s *Subscription) next() (m announced, mustRead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = false
	if s.reload {
		return announced{}, true
	}
	for len(s.mailbox) > 0 {
		m := s.mailbox[0]
		p := s.positions[m.ChannelID]
		if m.Seq > p.sent+1 && !p.held() && !p.ended() {
			s.look(m.ChannelID)
			return announced{}, true
		}
		s.mailbox[0] = announced{}
		s.mailbox = s.mailbox[1:]
		s.mailboxSize -= len(m.Payload)
		if p.isNext(m.Seq) {
			return m, false
		}
	}
	s.mailbox = nil
	mustRead = s.anyUnread()
	s.idle = !mustRead
	return announced{}, mustRead
}

// unread returns a channel that has to be read, and its end as far as is known: the inbox before all others, since
// it tells of channels, and these in turn, so that a busy one does not keep the others waiting.
func (s *Subscription) unread() (channel ids.ID, after, end uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.anyUnread() {
		return ids.ID{}, 0, 0, false
	}
	for i := range len(s.order) + 1 {
		at := 0
		if i > 0 {
			at = (s.turn + i - 1) % len(s.order)
		}
		p := s.positions[s.order[at]]
		if !p.mustRead() {
			continue
		}
		if i > 0 {
			s.turn = at + 1
		}
		p.unsure = false
		return s.order[at], p.sent, p.stored, true
	}
	return ids.ID{}, 0, 0, false
}

// begins reports whether a message is of a later generation than the one for which it is known up to where the device may
// read: it may have been left out of that.
func (s *Subscription) begins(m *store.Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.positions[m.ChannelID]
	later := p.isLater(m.Generation)
	p.generation = max(p.generation, m.Generation)
	return m.ChannelID != s.device && later
}

// sentOf returns the sequence up to which a channel was pushed.
func (s *Subscription) sentOf(channel ids.ID) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.positions[channel].sent
}

func (s *Subscription) hasEnded(channel ids.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.positions[channel].ended()
}

// mayRead reports whether a message is none that came after the device was removed, or before it came.
func (s *Subscription) mayRead(m *store.Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.positions[m.ChannelID]
	if p.until > 0 && m.Seq > p.until {
		p.pass(p.until) // What came before has expired.
		return false
	}
	p.pass(p.gapOf(m.Seq)) // Likewise.
	return m.Seq > p.sent
}

// reachedGoals reports whether everything stored at the beginning has been pushed, except what is held back.
func (s *Subscription) reachedGoals() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.positions {
		if p.sent < p.goal && !p.held() && !p.ended() {
			return false
		}
	}
	return true
}

func (s *Subscription) skip(channel ids.ID, seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.positions[channel].pass(seq)
}

// hold stops a channel and returns the sequence up to which it was pushed.
func (s *Subscription) hold(channel ids.ID, until time.Time) (after uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.positions[channel]
	if !p.held() {
		s.held++
	}
	p.heldUntil, p.unsure = until, true // When the time is over, look again.
	return p.sent
}

// release lets channels go on that were held long enough.
func (s *Subscription) release(now time.Time) {
	s.mu.Lock()
	released := false
	if s.held > 0 {
		for channel, p := range s.positions {
			if p.held() && !now.Before(p.heldUntil) {
				p.heldUntil, released = time.Time{}, true
				s.held--
				s.look(channel)
			}
		}
	}
	s.mu.Unlock()
	if released {
		s.signal()
	}
}

func (s *Subscription) tryReserve(m *store.Message, size int) (prev uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.credited(size) {
		return 0, false
	}
	p := s.positions[m.ChannelID]
	prev = p.prev
	s.fly(m, p, size)
	return prev, true
}

// credited reports whether there is credit for a delivery of size bytes. It needs s.mu.
func (s *Subscription) credited(size int) bool {
	return s.inFlight < s.credit && (s.inFlight == 0 || s.inFlightSize+size <= creditBytes)
}

// fly takes credit for a delivery and moves its channel's position. It needs s.mu.
func (s *Subscription) fly(m *store.Message, p *position, size int) {
	s.inFlight++
	s.inFlightSize += size
	p.prev, p.stored = m.Seq, max(p.stored, m.Seq)
	p.pass(m.Seq)
	p.pending = append(p.pending, flying{m.Seq, size})
}

// settleAll gives back the credit of what is acknowledged, unless one of the acknowledgements is refused.
func (s *Subscription) settleAll(acks []wire.Ack) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range acks {
		if p, ok := s.positions[a.ChannelID]; !ok || a.Seq > p.sent {
			return wire.Errorf(wire.CodeInvalidCursor, "sequence %d of channel %s was not delivered here", a.Seq, a.ChannelID)
		}
	}
	for _, a := range acks {
		s.settle(s.positions[a.ChannelID], a.Seq)
	}
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
