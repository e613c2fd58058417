package limits

import (
	"net/netip"
	"sync"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// The buckets that refuse, as metrics and answers name them.
const (
	ByConnection = "connection"
	ByAddress    = "address"
	ByAccount    = "account"
	ByLogins     = "logins"
	ByLookups    = "lookups"
	ByChannel    = "channel"
)

// maxPause is the longest time for which a connection that does not heed refusals is not read.
const maxPause = 5 * time.Second

// Conn is the request limits of one connection. It is safe for concurrent use; Close it once.
//
// Lock order: Limiter.mu before Conn.mu; Conn.mu before a holder's mu, the address's before the account's.
type Conn struct {
	l       *Limiter
	addr    netip.Addr
	key     netip.Addr
	address *holder

	mu       sync.Mutex
	account  *holder // Nil until authenticated.
	id       ids.ID
	own      bucket
	refused  bucket         // Refusals, as requests are counted: above its depth the connection is paused.
	seen     *policy.Policy // The policy that trusted was judged by.
	trusted  bool
	isClosed bool
}

// Verdict is what becomes of a request. The zero value lets it through.
type Verdict struct {
	By    string        // Which bucket refuses it.
	Wait  time.Duration // Until that bucket would not.
	Pause time.Duration // For how long nothing more should be read: the client goes on asking all the same.
}

// Err is the answer to a refused request.
func (v Verdict) Err() *wire.Error {
	return wire.RetryAfterf(wire.CodeRateLimited, roundUp(v.Wait), "%s; try again in %s", reasons[v.By], roundUp(v.Wait)).With("limit", v.By)
}

var reasons = map[string]string{
	ByConnection: "too many requests on this connection",
	ByAddress:    "too many requests from your address before logging in",
	ByAccount:    "too many requests of your account",
	ByLogins:     "too many logins and signups from your address",
	ByLookups:    "your account looks up too many others",
	ByChannel:    "too many messages in this channel",
}

// roundUp makes a wait one that the wire can say, in whole milliseconds, and people can read.
func roundUp(d time.Duration) time.Duration {
	step := time.Millisecond
	if d > time.Second {
		step = 100 * time.Millisecond
	}
	return max((d + step - 1).Truncate(step), step)
}

// Open begins the request limits of a connection from addr.
func (l *Limiter) Open(addr netip.Addr) *Conn {
	p := &l.policy().Limits
	now := l.clock()
	key := Key(addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	return &Conn{l: l, addr: addr, key: key, address: l.addresses.acquire(key, now, p)}
}

// Login has further requests count as the account's instead of the address's. It may be called again.
func (c *Conn) Login(account ids.ID) {
	l := c.l
	p := &l.policy().Limits
	now := l.clock()
	l.mu.Lock()
	defer l.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isClosed || c.account != nil && c.id == account {
		return
	}
	if c.account != nil {
		l.accounts.release(c.id, c.account, now, p)
	}
	c.account, c.id = l.accounts.acquire(account, now, p), account
}

// Close ends it.
func (c *Conn) Close() {
	l := c.l
	p := &l.policy().Limits
	now := l.clock()
	l.mu.Lock()
	defer l.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isClosed {
		return
	}
	c.isClosed = true
	l.addresses.release(c.key, c.address, now, p)
	if c.account != nil {
		l.accounts.release(c.id, c.account, now, p)
	}
}

// Take charges a request to its buckets, or to none and says which refuses it. A nil request is a frame that is none.
// Of a message (wire.EnqueueRequest) of an authenticated connection only the connection's share is charged: see Quota.
func (c *Conn) Take(r wire.Request) Verdict {
	rules := c.l.policy()
	v, account := c.taken(costOf(r), rules)
	if v.By != "" {
		c.tell(v, account)
	}
	return v
}

// taken charges, and says whose connection it is.
func (c *Conn) taken(k cost, rules *policy.Policy) (Verdict, ids.ID) {
	now := c.l.clock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.judge(rules)
	v := c.take(k, now, &rules.Limits)
	if v.By != "" {
		v.Pause = c.pause(now, &rules.Limits)
	}
	return v, c.id
}

// tell has a refused request recorded, of the account if it is one's. The address of a connection is proven.
func (c *Conn) tell(v Verdict, account ids.ID) {
	if v.By == ByAddress || v.By == ByLogins { // Not the account's doing alone.
		account = ids.ID{}
	}
	c.l.tell(c.key, account, audit.ReasonRateLimited)
}

// judge finds out whether the policy trusts the address, once for each policy.
func (c *Conn) judge(rules *policy.Policy) {
	if c.seen != rules {
		c.seen, c.trusted = rules, rules.Limits.Trusts(c.addr)
	}
}

// take needs c.mu.
func (c *Conn) take(k cost, now int64, p *policy.Limits) Verdict {
	r := rateOf(requests, p)
	if wait := c.own.wait(now, k.requests, r); wait > 0 {
		return Verdict{By: ByConnection, Wait: wait}
	}
	if v := c.takeShared(k, now, p); v.By != "" {
		return v
	}
	c.own.spend(k.requests, r)
	return Verdict{}
}

// takeShared charges the address and the account.
func (c *Conn) takeShared(k cost, now int64, p *policy.Limits) Verdict {
	address, account := k, k
	switch {
	case c.account == nil:
		account = cost{}
	case k.deferred:
		account, address.requests = cost{}, 0
	default:
		address.requests = 0
	}
	if c.trusted {
		address = cost{}
	}
	asked := [...]charge{
		{c.address, requests, address.requests, ByAddress},
		{c.address, logins, address.logins, ByLogins},
		{c.account, requests, account.requests, ByAccount},
		{c.account, lookups, account.lookups, ByLookups},
	}
	return takeAll(asked[:], now, p)
}

// charge is what one bucket is asked for.
type charge struct {
	of   *holder
	kind int
	cost float64
	by   string
}

// takeAll charges all, or none. Charges of one holder stand together.
func takeAll(asked []charge, now int64, p *policy.Limits) Verdict {
	lockAll(asked)
	v := refusing(asked, now, p)
	for i := range asked {
		if a := &asked[i]; a.cost > 0 && v.By == "" {
			a.of.buckets[a.kind].spend(a.cost, rateOf(a.kind, p))
		}
	}
	unlockAll(asked)
	return v
}

// refusing returns the verdict of the first bucket that refuses.
func refusing(asked []charge, now int64, p *policy.Limits) Verdict {
	for i := range asked {
		if a := &asked[i]; a.cost > 0 {
			if wait := a.of.buckets[a.kind].wait(now, a.cost, rateOf(a.kind, p)); wait > 0 {
				return Verdict{By: a.by, Wait: wait}
			}
		}
	}
	return Verdict{}
}

func lockAll(asked []charge) {
	var last *holder
	for i := range asked {
		if a := &asked[i]; a.cost > 0 && a.of != last {
			a.of.mu.Lock()
			last = a.of
		}
	}
}

func unlockAll(asked []charge) {
	var last *holder
	for i := range asked {
		if a := &asked[i]; a.cost > 0 && a.of != last {
			a.of.mu.Unlock()
			last = a.of
		}
	}
}

// pause charges a refusal and says for how long to read no further. Refusals cost too: a client that goes on asking
// gets as many of them as it would get answers, and is then held back.
func (c *Conn) pause(now int64, p *policy.Limits) time.Duration {
	r := rateOf(requests, p)
	wait := min(c.refused.wait(now, 1, r), maxPause)
	c.refused.charge(now, 1, r)
	return wait
}

// Quota charges a message to its account, once it is known that it will be stored: it is no duplicate. The connection
// may have ended meanwhile.
func (c *Conn) Quota(r *wire.EnqueueRequest) Verdict {
	rules := c.l.policy()
	now := c.l.clock()
	v, ok := c.quota(r, now, &rules.Limits)
	if !ok {
		v = c.quotaOfOneWhoLeft(r, now, rules)
	}
	if v.By != "" {
		c.tell(v, c.id) // Set before there is anything to enqueue, and left so.
	}
	return v
}

func (c *Conn) quotaOfOneWhoLeft(r *wire.EnqueueRequest, now int64, rules *policy.Policy) Verdict {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	account := c.l.accounts.acquire(c.id, now, &rules.Limits)
	defer c.l.accounts.release(c.id, account, now, &rules.Limits)
	return takeAll([]charge{{account, requests, costOf(r).requests, ByAccount}}, now, &rules.Limits)
}

// quota charges the account of a connection that is open or was never authenticated.
func (c *Conn) quota(r *wire.EnqueueRequest, now int64, p *policy.Limits) (Verdict, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.account == nil:
		return Verdict{}, true
	case c.isClosed:
		return Verdict{}, false
	}
	asked := [...]charge{{c.account, requests, costOf(r).requests, ByAccount}}
	return takeAll(asked[:], now, p), true
}
