// Package limits decides who may connect and how much may be asked: places for connections, token buckets for requests,
// and a gate before costly work. It knows addresses, accounts and requests; it does not know QUIC.
//
// Connections (Admit). A place is taken before a connection costs anything, and given back when it ends. Only an
// address that was shown to be the client's own counts against that address: by QUIC's Retry, or by a handshake that
// was completed. So nobody can use up somebody else's places by writing his address on packets. Near a bound newcomers
// are asked for that proof first (NeedsRetry).
//
// Requests (Open). Each connection, each address before it has authenticated, and each account has a token bucket; logins
// of an address and lookups of an account have one more. A request is charged to all its buckets or, refused, to none.
// The order for a message is: connection, dedup, account (Conn.Quota), so that a retry of what is stored already is
// answered and costs the account nothing.
//
// What is kept of an address or an account is exact while somebody of it is connected. Of those who have left, what
// they have spent is kept in a table of fixed size, which errs by remembering too much, never too little: to leave, or
// to have others crowd in, does not refill a bucket.
//
// All numbers come from the policy in use at that moment: a new one applies to connections there are, and nothing that
// was spent is forgotten.
package limits

import (
	"context"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/schema/ids"
)

// Limiter is the limits of one process. It is safe for concurrent use.
type Limiter struct {
	policy func() *policy.Policy
	now    func() time.Time
	start  time.Time
	audit  audit.Sink // audit.Discard until Audit.

	mu        sync.Mutex
	addresses holders[netip.Addr]
	accounts  holders[ids.ID]
	open      int // Places taken,
	underway  int // and of those, handshakes that are not done.

	channels channelBuckets
}

// New returns the limits of a process without connections. p is asked for each decision and must be quick; now must
// not go backwards, as time.Now with its monotonic clock does not.
func New(p func() *policy.Policy, now func() time.Time) *Limiter {
	l := &Limiter{policy: p, now: now, start: now(), audit: audit.Discard, addresses: newHolders[netip.Addr](), accounts: newHolders[ids.ID]()}
	l.channels.seed = maphash.MakeSeed()
	return l
}

// Audit has refusals told to sink, those of a kind together. Call it before the Limiter is used.
func (l *Limiter) Audit(sink audit.Sink) { l.audit = sink }

// tell has a refusal recorded. An invalid address is one of which nobody knows whose it is.
func (l *Limiter) tell(addr netip.Addr, account ids.ID, r audit.Reason) {
	l.audit.Tally(context.Background(), audit.LimitReached(account, r).FromAddress(addr))
}

// clock is the time since the start in nanoseconds.
func (l *Limiter) clock() int64 { return int64(l.now().Sub(l.start)) }

// Key is what an address counts as: an IPv4 address as itself, also where it came in IPv6 notation; an IPv6 address
// as its /64, which one customer has for himself.
func Key(addr netip.Addr) netip.Addr {
	addr = addr.Unmap()
	if !addr.Is6() {
		return addr
	}
	p, err := addr.Prefix(64)
	if err != nil {
		return addr
	}
	return p.Addr()
}

// The buckets of a holder, by what they count. An address has no lookups, an account none of the others.
const (
	requests = iota
	logins
	lookups
	dials
	kinds
)

// rate is the limit of one kind of bucket: refill in tokens a second, and depth.
type rate struct{ refill, depth float64 }

func rateOf(kind int, p *policy.Limits) rate {
	switch kind {
	case logins:
		return perMinute(p.LoginsPerMinute)
	case lookups:
		return perMinute(p.LookupsPerMinute)
	case dials:
		return rate{max(float64(p.ConnectionsPerIP)/5, 1), 2 * float64(p.ConnectionsPerIP)}
	}
	return rate{float64(p.RequestsPerSecond), float64(p.RequestBurst)}
}

func perMinute(n int) rate { return rate{float64(n) / 60, float64(n)} }
