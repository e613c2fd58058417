package limits

import (
	"net/netip"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/schema/ids"
)

// Refusal says why a connection is not taken.
type Refusal string

// The reasons, as metrics name them.
const (
	Admitted  Refusal = ""
	TotalFull Refusal = "total"   // The process has as many as it may.
	IPFull    Refusal = "address" // The address has as many as it may.
	IPFast    Refusal = "rate"    // The address makes connections too fast.
)

// refused tells of a connection that is not taken. An address that is not proven may be forged: nobody is accused by it.
func (l *Limiter) refused(addr netip.Addr, proven bool, why Refusal) {
	addr = Key(addr)
	if !proven {
		addr = netip.Addr{}
	}
	reason := audit.ReasonTooManyConnections
	if why == IPFast {
		reason = audit.ReasonHandshakeLimit
	}
	l.tell(addr, ids.ID{}, reason)
}

// NeedsRetry reports whether a newcomer must show first that the address is its own: when many handshakes are under
// way, when the last places are left, or when the address is near its own bounds. Who would be refused in any case need
// not. The address may be forged; asking changes nothing.
func (l *Limiter) NeedsRetry(addr netip.Addr) bool {
	p := &l.policy().Limits
	now := l.clock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= p.MaxConnections {
		return false
	}
	near, refused := false, false
	if !p.Trusts(addr) {
		near, refused = l.nearBounds(Key(addr), now, p)
	}
	many := manyHandshakes(p)
	return !refused && (near || l.underway >= many || l.open+many > p.MaxConnections)
}

// manyHandshakes is how many are taken without proof. Strangers with forged addresses hold no more places than that.
func manyHandshakes(p *policy.Limits) int {
	return min(p.HandshakesBeforeRetry, max(p.MaxConnections/4, 1))
}

// nearBounds reports whether an address is near its bounds, and whether it is beyond them.
func (l *Limiter) nearBounds(key netip.Addr, now int64, p *policy.Limits) (near, beyond bool) {
	r := rateOf(dials, p)
	n, ok := l.addresses.live[key]
	if !ok {
		spent := l.addresses.recall(key, now, p)[dials].spent
		return spent >= r.depth/2, spent+1 > r.depth
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	beyond = n.refuses(now, p) != Admitted
	return n.verified+n.pending >= p.ConnectionsPerIP-p.ConnectionsPerIP/4 || n.buckets[dials].spent >= r.depth/2, beyond
}

// refuses says why an address may have no further connection, by what is proven to be its own. It needs n.mu.
func (n *holder) refuses(now int64, p *policy.Limits) Refusal {
	switch {
	case n.verified >= p.ConnectionsPerIP:
		return IPFull
	case n.buckets[dials].wait(now, 1, rateOf(dials, p)) > 0:
		return IPFast
	}
	return Admitted
}

// Place is one connection's, from its first packet to its end.
type Place struct {
	l        *Limiter
	key      netip.Addr
	holder   *holder
	verified bool // Counted as the address's.
	underway bool
	released bool
}

// Admit takes a place for a handshake. verified says that the address was proven by a Retry. Every place must be
// released. A refusal takes none.
func (l *Limiter) Admit(addr netip.Addr, verified bool) (*Place, Refusal) {
	place, why := l.admit(addr, verified)
	if why != Admitted {
		l.refused(addr, verified, why)
	}
	return place, why
}

func (l *Limiter) admit(addr netip.Addr, verified bool) (*Place, Refusal) {
	p := &l.policy().Limits
	now := l.clock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= p.MaxConnections {
		return nil, TotalFull
	}
	key := Key(addr)
	n := l.addresses.acquire(key, now, p)
	if !p.Trusts(addr) {
		if why := n.connect(now, p, verified); why != Admitted {
			l.addresses.release(key, n, now, p)
			return nil, why
		}
	}
	if verified {
		n.verified++
	} else {
		n.pending++
	}
	l.open++
	l.underway++
	return &Place{l: l, key: key, holder: n, verified: verified, underway: true}, Admitted
}

// connect charges a connection, if the address is proven: otherwise its end will.
func (n *holder) connect(now int64, p *policy.Limits, verified bool) Refusal {
	n.mu.Lock()
	defer n.mu.Unlock()
	if why := n.refuses(now, p); why != Admitted {
		return why
	}
	if verified {
		n.buckets[dials].spend(1, rateOf(dials, p))
	}
	return Admitted
}

// Complete notes that the handshake is done, which proves the address. Other than Admitted is IPFull: handshakes begun
// at the same time, before there were many, are more than the address may have. The connection is then to be closed;
// its place is still to be released.
func (s *Place) Complete(addr netip.Addr) Refusal {
	why := s.complete(addr)
	if why != Admitted {
		s.l.refused(addr, true, why)
	}
	return why
}

func (s *Place) complete(addr netip.Addr) Refusal {
	l := s.l
	p := &l.policy().Limits
	now := l.clock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.released || !s.underway {
		return Admitted
	}
	s.underway = false
	l.underway--
	if s.verified {
		return Admitted
	}
	s.verified = true
	s.holder.pending--
	s.holder.verified++
	if p.Trusts(addr) {
		return Admitted
	}
	s.holder.mu.Lock()
	s.holder.buckets[dials].charge(now, 1, rateOf(dials, p)) // It is done: the next one waits the longer.
	s.holder.mu.Unlock()
	if s.holder.verified > p.ConnectionsPerIP {
		return IPFull
	}
	return Admitted
}

// Release gives the place back. Only the first call counts.
func (s *Place) Release() {
	l := s.l
	p := &l.policy().Limits
	now := l.clock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.released {
		return
	}
	s.released = true
	l.open--
	if s.underway {
		l.underway--
	}
	if s.verified {
		s.holder.verified--
	} else {
		s.holder.pending--
	}
	l.addresses.release(s.key, s.holder, now, p)
}

// Counts returns the places taken and, of those, the handshakes under way.
func (l *Limiter) Counts() (open, underway int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open, l.underway
}
