// Package mlspolicy is what a cell checks of MLS without being a member: suites, lifetimes, credentials, and that
// what is stored in a channel belongs to that channel's group.
package mlspolicy

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"quicproquo.dev/mls"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// ClockSkew is how far a client's clock may be ahead or behind where a lifetime is judged.
const ClockSkew = 10 * time.Minute

// leaf is what a credential's device certificate says.
func leaf(cred mls.Credential, key ed25519.PublicKey) (*devicecert.Certificate, error) {
	c, err := devicecert.Parse(cred.Identity)
	if err != nil {
		return nil, err
	}
	if !c.DeviceKey.Equal(key) {
		return nil, errors.New("the leaf's signature key is not the certificate's device key")
	}
	return c, nil
}

// owner is a mls.CredentialValidator that takes the leaves of one device only.
type owner struct {
	device  ids.ID
	account ids.ID
	root    ed25519.PublicKey
}

// ValidateCredential implements mls.CredentialValidator.
func (o owner) ValidateCredential(cred mls.Credential, key ed25519.PublicKey) error {
	c, err := leaf(cred, key)
	switch {
	case err != nil:
		return err
	case c.AccountID != o.account || c.DeviceID != o.device:
		return errors.New("the credential names another device")
	case !c.RootKey.Equal(o.root):
		return errors.New("the credential is signed by another root key than the account's")
	}
	return nil
}

// KeyPackage checks a KeyPackage that a device uploads: form, suite, signatures, credential and a lifetime that has
// begun and does not exceed longest.
func KeyPackage(b []byte, device, account ids.ID, root ed25519.PublicKey, now time.Time, longest time.Duration) (*mls.KeyPackage, error) {
	m, err := mls.ParseMessage(b)
	if err != nil {
		return nil, suiteOr(err, wire.CodeInvalidKeyPackage)
	}
	kp := m.KeyPackage
	if kp == nil {
		return nil, wire.Errorf(wire.CodeInvalidKeyPackage, "the MLSMessage holds no KeyPackage")
	}
	_, notAfter := kp.Lifetime()
	at := now
	if notBefore, _ := kp.Lifetime(); notBefore.After(now) && notBefore.Before(now.Add(ClockSkew)) {
		at = notBefore
	}
	if err := kp.Verify(at, owner{device, account, root}); err != nil {
		if errors.Is(err, mls.ErrExpired) {
			return nil, wire.Errorf(wire.CodeExpiredKeyPackage, "the KeyPackage expired at %s; make a new one", notAfter.UTC().Format(time.RFC3339))
		}
		return nil, suiteOr(err, wire.CodeInvalidKeyPackage)
	}
	if notAfter.After(now.Add(longest + ClockSkew)) {
		return nil, wire.Errorf(wire.CodeInvalidKeyPackage, "the KeyPackage lives until %s, at most %s is allowed", notAfter.UTC().Format(time.RFC3339), longest)
	}
	return kp, nil
}

func suiteOr(err error, code wire.Code) *wire.Error {
	var e *wire.Error
	if errors.As(err, &e) {
		return e
	}
	if errors.Is(err, mls.ErrUnsupportedSuite) {
		return wire.Errorf(wire.CodeUnsupportedSuite, "only cipher suite 0x%04x (MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519) is taken", mls.SuiteX25519AES128GCMSHA256Ed25519)
	}
	return wire.Errorf(code, "%v", err)
}

// Member is a leaf of a group.
type Member struct{ AccountID, DeviceID ids.ID }

// members is a mls.CredentialValidator that notes every leaf, each device once, each account under one root key.
type members struct {
	most  int
	list  []Member
	seen  map[ids.ID]ed25519.PublicKey
	roots map[ids.ID]ed25519.PublicKey
}

// ValidateCredential implements mls.CredentialValidator.
func (m *members) ValidateCredential(cred mls.Credential, key ed25519.PublicKey) error {
	c, err := leaf(cred, key)
	switch {
	case err != nil:
		return err
	case m.seen[c.DeviceID].Equal(c.DeviceKey):
		return nil // The engine may ask more than once about a leaf, and lets no two leaves share a key.
	case m.seen[c.DeviceID] != nil:
		return errors.New("one device appears with two keys")
	case m.roots[c.AccountID] != nil && !m.roots[c.AccountID].Equal(c.RootKey):
		return errors.New("one account appears under two root keys")
	case len(m.list) == m.most: // Before the work of verifying them all.
		return wire.Errorf(wire.CodeInvalidArgument, "the group has more than %d devices: its creator and one for each Welcome", m.most).With("field", "welcomes")
	}
	m.seen[c.DeviceID], m.roots[c.AccountID] = c.DeviceKey, c.RootKey
	m.list = append(m.list, Member{c.AccountID, c.DeviceID})
	return nil
}

// Group is what a GroupInfo shows.
type Group struct {
	Epoch   uint64
	Members []Member
	Roots   map[ids.ID]ed25519.PublicKey // By account.
	State   []byte                       // For OpenState.
}

// firstEpoch is the epoch of a group's creation: the creator adds everybody else in one Commit.
const firstEpoch = 1

// GroupInfo checks the GroupInfo that creates a channel's generation as a joiner would and returns who is in the
// group: at most most devices.
func GroupInfo(b []byte, channel ids.ID, generation uint32, most int) (*Group, error) {
	m, err := mls.ParseMessage(b)
	if err != nil {
		return nil, suiteOr(err, wire.CodeInvalidMessage)
	}
	if m.GroupInfo == nil {
		return nil, wire.Errorf(wire.CodeInvalidMessage, "the MLSMessage holds no GroupInfo")
	}
	if err := inGroup(m.GroupInfo.GroupID(), channel, generation); err != nil {
		return nil, err
	}
	if epoch := m.GroupInfo.Epoch(); epoch != firstEpoch {
		return nil, wire.Errorf(wire.CodeInvalidMessage, "the GroupInfo is of epoch %d; a group is created at epoch %d, everybody added in one Commit", epoch, firstEpoch)
	}
	if _, ok := m.GroupInfo.ExternalPub(); !ok {
		return nil, wire.Errorf(wire.CodeInvalidMessage, "the GroupInfo has no external_pub, by which members' further devices join")
	}
	v := &members{most: most, seen: map[ids.ID]ed25519.PublicKey{}, roots: map[ids.ID]ed25519.PublicKey{}}
	public, err := mls.NewPublicGroup(m.GroupInfo, nil, v)
	if err != nil {
		return nil, suiteOr(err, wire.CodeInvalidMessage)
	}
	state, err := public.MarshalBinary()
	return &Group{Epoch: m.GroupInfo.Epoch(), Members: v.list, Roots: v.roots, State: state}, err
}

// Welcome checks that b is a Welcome of the allowed suite.
func Welcome(b []byte) error {
	m, err := mls.ParseMessage(b)
	if err != nil {
		return suiteOr(err, wire.CodeInvalidMessage)
	}
	if m.Welcome == nil {
		return wire.Errorf(wire.CodeInvalidMessage, "the MLSMessage holds no Welcome")
	}
	return nil
}

// Application checks an application message of a channel's generation, of which only the header is readable, and returns
// its epoch.
func Application(b []byte, channel ids.ID, generation uint32, delivery ids.ID) (epoch uint64, err error) {
	m, err := mls.ParseMessage(b)
	if err != nil {
		return 0, suiteOr(err, wire.CodeInvalidMessage)
	}
	p := m.PrivateMessage
	if p == nil || p.ContentType != mls.ContentApplication {
		return 0, wire.Errorf(wire.CodeInvalidMessage, "a channel takes application messages as PrivateMessage")
	}
	if string(p.AuthenticatedData) != string(delivery[:]) {
		return 0, wire.Errorf(wire.CodeInvalidMessage, "the message's authenticated_data must be its delivery id")
	}
	return p.Epoch, inGroup(p.GroupID, channel, generation)
}

func inGroup(groupID []byte, channel ids.ID, generation uint32) error {
	c, g, err := ids.ParseGroupID(groupID)
	if err != nil || c != channel {
		return wire.Errorf(wire.CodeInvalidMessage, "the message belongs to another group than channel %s", channel)
	}
	if g != generation {
		return wire.Errorf(wire.CodeEpochConflict, "the message belongs to generation %d, the request says %d", g, generation)
	}
	return nil
}

// String implements fmt.Stringer.
func (m Member) String() string { return fmt.Sprintf("%s/%s", m.AccountID, m.DeviceID) }
