package audit

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"net/netip"
	"time"

	"quicproquo.dev/schema/ids"
)

// SubjectKey is the random key of one account's pseudonyms. Whoever has it, and the ids, can tell which records are the
// account's; once it is gone nobody can.
type SubjectKey [32]byte

// NewSubjectKey draws one.
func NewSubjectKey() *SubjectKey {
	var k SubjectKey
	rand.Read(k[:]) //nolint:errcheck // crypto/rand.Read never fails.
	return &k
}

// Account is the account's own pseudonym.
func (k *SubjectKey) Account() Ref { return Ref(k.mac("account", nil)) }

// Device is the pseudonym of a device in events of the account.
func (k *SubjectKey) Device(id ids.ID) Ref { return Ref(k.mac("device", id[:])) }

// Session is the pseudonym of a session in events of the account.
func (k *SubjectKey) Session(id ids.ID) Ref { return Ref(k.mac("session", id[:])) }

// Channel is the pseudonym of a channel in events of the account. Another account's events have another for the same channel.
func (k *SubjectKey) Channel(id ids.ID) Ref { return Ref(k.mac("channel", id[:])) }

func (k *SubjectKey) mac(what string, id []byte) []byte {
	return mac(k[:], "qpq/1 audit "+what+"\x00", id)[:len(Ref{})]
}

func mac(key []byte, label string, data []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(label))
	m.Write(data)
	return m.Sum(nil)
}

// AddressPeriod is how long addresses are hashed with one key: events of one period can be told to come from the same
// address, events of two cannot.
const AddressPeriod = 7 * 24 * time.Hour

// AddressKeysKept is how many periods' keys are kept. Before, and with the cell's secrets at hand, an address that one
// knows can be looked for; afterwards nobody can.
const AddressKeysKept = 4

// PeriodOf numbers the periods.
func PeriodOf(t time.Time) int64 { return t.Unix() / int64(AddressPeriod/time.Second) }

// AddressKey is the random key of one period.
type AddressKey [32]byte

// NewAddressKey draws one.
func NewAddressKey() *AddressKey {
	var k AddressKey
	rand.Read(k[:]) //nolint:errcheck // crypto/rand.Read never fails.
	return &k
}

// Ref hashes an IPv4 address, or the /64 of an IPv6 address, which is what one household or host has.
func (k *AddressKey) Ref(a netip.Addr) AddressRef {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64) // It is valid for every IPv6 address.
		a = p.Addr()
	}
	b := a.AsSlice()
	return AddressRef(mac(k[:], "qpq/1 audit address\x00", b)[:len(AddressRef{})])
}

// Resolver finds the keys of pseudonyms.
type Resolver interface {
	// Subject returns an account's key; nil when there is no such account.
	Subject(account ids.ID) (*SubjectKey, error)
	// Address returns the key of a period.
	Address(period int64) (*AddressKey, error)
	// Admin returns the pseudonym of an admin's name.
	Admin(name string) Ref
}

// Record makes the event's record. now is its time unless it has one.
func (e *Event) Record(now time.Time, keys Resolver) (*Record, error) {
	r := &Record{At: e.at, Kind: e.kind, Outcome: e.outcome, Reason: e.reason, Actor: e.by.kind, Details: e.details[:e.n]}
	if r.At.IsZero() {
		r.At = now
	}
	r.At = r.At.UTC().Truncate(time.Microsecond)
	if err := e.pseudonyms(r, keys); err != nil {
		return nil, err
	}
	if e.address.IsValid() {
		k, err := keys.Address(PeriodOf(r.At))
		if err != nil {
			return nil, err
		}
		r.Address = k.Ref(e.address)
	}
	return r, nil
}

// pseudonyms fills in those that hang on accounts. Devices, sessions and channels are named as the account that acted
// has them, else as the one it is about.
func (e *Event) pseudonyms(r *Record, keys Resolver) error {
	subject, err := subjectKey(e.subject, keys)
	if err != nil {
		return err
	}
	own := subject
	switch {
	case e.by.kind == ActorAdmin:
		r.By = keys.Admin(e.by.admin)
	case e.by.account != e.subject:
		acting, err := subjectKey(e.by.account, keys)
		if err != nil {
			return err
		}
		if acting != nil {
			r.By, own = acting.Account(), acting
		}
	case subject != nil:
		r.By = subject.Account()
	}
	if subject != nil {
		r.Subject = subject.Account()
	}
	if own != nil {
		name := func(to *Ref, id ids.ID, f func(ids.ID) Ref) {
			if !id.IsZero() {
				*to = f(id)
			}
		}
		name(&r.Device, e.device, own.Device)
		name(&r.Session, e.session, own.Session)
		name(&r.Channel, e.channel, own.Channel)
	}
	return nil
}

func subjectKey(account ids.ID, keys Resolver) (*SubjectKey, error) {
	if account.IsZero() {
		return nil, nil //nolint:nilnil // nobody.
	}
	return keys.Subject(account)
}

// Accounts lists the accounts that the event names, the subject first.
func (e *Event) Accounts() []ids.ID {
	var list []ids.ID
	for _, id := range []ids.ID{e.subject, e.by.account} {
		if !id.IsZero() && (len(list) == 0 || list[0] != id) {
			list = append(list, id)
		}
	}
	return list
}
