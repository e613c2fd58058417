package identity

import (
	"context"
	"net/netip"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// A login counts as failed from its KE1 on, until a right KE3 takes that back. It counts against several at once:
//
//	address   who guesses many names from one place
//	pair      who guesses one name from one place
//	name      who guesses one name from many places
//	device    who holds a device of the account, in the place of all the others
//
// Each has some failures free, then a wait that doubles with every further one. Strangers' failures must not keep an
// account's people out for good: a device of theirs, proven by its key, counts apart; an address from which they have
// logged in lately is not held up by the name's count; recovery codes are not held up by it at all; and the name's wait
// is short, so that also who has nothing of this has his turn. docs/design/0004-identity.md thinks it through.

// rule is how failures make somebody wait.
type rule struct {
	kind   string
	free   int           // So many failures cost nothing.
	most   time.Duration // The longest wait.
	forget time.Duration // After each such time without a failure, one is forgotten.
	clears bool          // Success forgets all failures, not only its own.
}

var (
	addressRule = rule{"address", 50, 15 * time.Minute, time.Minute, false}
	pairRule    = rule{"pair", 5, 15 * time.Minute, 10 * time.Minute, true}
	nameRule    = rule{"name", 20, time.Minute, 2 * time.Minute, false}
	deviceRule  = rule{"device", 10, time.Minute, time.Minute, true}
)

const (
	firstWait    = time.Second
	knownFor     = 30 * 24 * time.Hour
	knownStep    = 24 * time.Hour // It is not written anew before.
	maxDoublings = 16
)

// wait is how long n failures make wait.
func (r rule) wait(n int) time.Duration {
	if n <= r.free {
		return 0
	}
	return min(firstWait<<min(n-r.free-1, maxDoublings), r.most)
}

// left is how much of that is left. The clocks of replicas may differ: nobody waits longer than for a failure just now.
func (r rule) left(a store.Attempts, now time.Time) time.Duration {
	whole := r.wait(a.Failures)
	return min(a.LastAt.Add(whole).Sub(now), whole)
}

// charge counts a failure.
func (r rule) charge(a store.Attempts, now time.Time) store.Attempts {
	n := max(0, a.Failures-int(max(0, now.Sub(a.LastAt)/r.forget)))
	return r.at(min(n+1, r.free+maxDoublings), now)
}

func (r rule) at(failures int, last time.Time) store.Attempts {
	return store.Attempts{Failures: failures, LastAt: last, ForgetAt: last.Add(time.Duration(failures) * r.forget)}
}

// attempt is a login or recovery and what it counts against.
type attempt struct {
	rules    []rule
	subjects [][]byte
	address  string // Empty: not known, or one that many people share.

	knownUntil time.Time // As one of the account's.
}

func (a *attempt) against(s *Service, r rule, value string) {
	a.rules = append(a.rules, r)
	a.subjects = append(a.subjects, s.store.AttemptSubject(r.kind, value))
}

// place is what counts as one address: a network of 2⁶⁴ is one customer's. It is empty for addresses that the policy
// trusts, behind which are many people.
func (s *Service) place(ctx context.Context) string {
	addr := audit.AddressOf(ctx).Unmap().WithZone("")
	rules := s.policy()
	if !addr.IsValid() || rules.Limits.Trusts(addr) {
		return ""
	}
	if addr.Is6() {
		return netip.PrefixFrom(addr, 64).Masked().String()
	}
	return addr.String()
}

// attemptOf says what a login counts against. A name that does not exist counts like one that does.
func (s *Service) attemptOf(place, name string, a *store.LoginAccount, r *wire.LoginStartRequest, exporter []byte) attempt {
	t := attempt{address: place, knownUntil: a.KnownUntil}
	if s.provenDevice(a, r, exporter) {
		t.against(s, deviceRule, string(r.DeviceID[:]))
		return t
	}
	if place != "" {
		t.against(s, addressRule, place)
		t.against(s, pairRule, place+"\x00"+name)
	}
	if a.KnownUntil.IsZero() {
		t.against(s, nameRule, name)
	}
	return t
}

// provenDevice reports whether a device of the account asks. The signature is checked whatever the account.
func (s *Service) provenDevice(a *store.LoginAccount, r *wire.LoginStartRequest, exporter []byte) bool {
	if r.DeviceID == (ids.ID{}) {
		return false
	}
	key := a.Device
	if key == nil {
		key = s.nobody
	}
	return devicecert.VerifyProof(key, exporter, r.Proof) && a.Device != nil
}

// charge counts an attempt, or refuses it while one that it counts against has to wait.
func (s *Service) charge(ctx context.Context, t attempt, account ids.ID) error {
	if len(t.rules) == 0 {
		return nil
	}
	now := s.now()
	var locked audit.Event // The last one of those that begin.
	err := s.store.ChangeAttempts(ctx, t.subjects, func(list []store.Attempts) error {
		var left time.Duration
		for i, a := range list {
			left = max(left, t.rules[i].left(a, now))
		}
		if left > 0 {
			return errLockedOut(left)
		}
		for i, r := range t.rules {
			list[i] = r.charge(list[i], now)
			if wait := r.wait(list[i].Failures); wait > 0 {
				locked = r.lockout(account, list[i], now.Add(wait))
			}
		}
		return nil
	})
	switch {
	case wire.HasCode(err, wire.CodeRateLimited):
		s.audit.Tally(ctx, audit.LoginDenied(account, audit.ReasonLockedOut).At(now))
	case err == nil && locked.Kind() != 0:
		s.audit.Note(ctx, locked.At(now))
	}
	return err
}

// lockout is the event; an address's own is about no account.
func (r rule) lockout(account ids.ID, a store.Attempts, until time.Time) audit.Event {
	if r.kind == addressRule.kind {
		account = ids.ID{}
	}
	return audit.LockoutBegan(account, a.Failures, until)
}

func errLockedOut(left time.Duration) *wire.Error {
	return wire.RetryAfterf(wire.CodeRateLimited, left,
		"too many logins did not succeed, with this name or from this address; try again in %s, or from a device that is logged in",
		max(left.Round(time.Second), time.Second)).With("limit", "failures")
}

// succeeded takes an attempt back, and remembers where it came from.
func (s *Service) succeeded(ctx context.Context, account ids.ID, t attempt) {
	f := store.Forgiven{Subjects: t.subjects}
	for _, r := range t.rules {
		f.Clears, f.Forget = append(f.Clears, r.clears), append(f.Forget, r.forget)
	}
	until := s.now().Add(knownFor)
	if t.address == "" || until.Sub(t.knownUntil) < knownStep {
		until = time.Time{}
	}
	if err := s.store.ForgiveAttempt(ctx, f, account, t.address, until); err != nil {
		s.log.WarnContext(ctx, "a login that succeeded still counts as failed", "account", account, "error", err)
	}
}
