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

// maxLifetime is the most that an added KeyPackage may claim to live: what a policy can allow, a year, and a day for clocks.
// Clients hold each other to the same, and the cell must not let pass what a member would refuse: it would be left behind.
const maxLifetime = 366 * 24 * time.Hour

// leaves is a mls.CredentialValidator that takes every leaf that a device certificate stands behind. Whether the devices
// belong there is judged of a Change.
type leaves struct{}

// ValidateCredential implements mls.CredentialValidator.
func (leaves) ValidateCredential(cred mls.Credential, key ed25519.PublicKey) error {
	_, err := leaf(cred, key)
	return err
}

// ValidateLifetime implements mls.LifetimeValidator.
func (leaves) ValidateLifetime(notBefore, notAfter time.Time) error {
	if life := notAfter.Sub(notBefore); life > maxLifetime {
		return fmt.Errorf("a KeyPackage for %s, longer than %s", life, maxLifetime)
	}
	return nil
}

// State is the public state of a channel's MLS group in one epoch: what the cell knows of it. It does not change, and is
// safe for concurrent use.
type State struct{ public *mls.PublicGroup }

// OpenState reads what State.Encode wrote, or, without that, what a stored GroupInfo shows.
func OpenState(encoded, groupInfo []byte) (*State, error) {
	if encoded != nil {
		public, err := mls.UnmarshalPublicGroup(encoded, leaves{})
		return &State{public}, err
	}
	m, err := mls.ParseMessage(groupInfo)
	if err != nil {
		return nil, err
	}
	if m.GroupInfo == nil {
		return nil, errors.New("the stored MLSMessage holds no GroupInfo")
	}
	public, err := mls.NewPublicGroup(m.GroupInfo, nil, leaves{})
	return &State{public}, err
}

// Encode returns the state as bytes. They hold no secret.
func (s *State) Encode() ([]byte, error) { return s.public.MarshalBinary() }

// Epoch returns the group's epoch.
func (s *State) Epoch() uint64 { return s.public.Epoch() }

// Proposals returns how many proposals wait for a Commit.
func (s *State) Proposals() int { return s.public.ProposalsWaiting() }

// RatchetTree returns the tree, as a joiner needs it who has a GroupInfo without one.
func (s *State) RatchetTree() []byte { return s.public.RatchetTree() }

// Members returns the devices in the group, from left to right.
func (s *State) Members() []Member {
	list := s.public.Members()
	out := make([]Member, len(list))
	for i, m := range list {
		out[i] = memberOf(m.Credential)
	}
	return out
}

// memberOf reads whose a leaf is. Its certificate was verified when it came into the group, and is not once more: a large
// group has many.
func memberOf(c mls.Credential) Member {
	if len(c.Identity) != devicecert.Size {
		return Member{} // Nobody's.
	}
	return Member{ids.ID(c.Identity[1:17]), ids.ID(c.Identity[17:33])} // Package devicecert has the layout.
}

// Handshake is where a Commit or a proposal says that it belongs, and whom the cell knows to have sent it.
type Handshake struct {
	Channel    ids.ID
	Generation uint32
	Delivery   ids.ID
	Sender     Member
}

// Act is a device that somebody adds or removes.
type Act struct {
	By      Member // Who commits or, of a proposal by reference, who proposed.
	Device  Member
	Root    ed25519.PublicKey // Of an added device: that its certificate is signed by.
	ByRef   bool
	Replace bool // Of a removal by an external Commit: the joiner's own earlier leaf.
}

// Change is what a Commit or a proposal does to a group, all of it verified but who may do so.
type Change struct {
	Adds, Removes []Act
	Extends       []Act // Changes of the group's extensions: By alone is set.
	External      bool  // The sender joins by it.
	Next          *State
}

// Public parses a Commit or a proposal and checks what needs no state: its form, where it belongs and which delivery it
// is. It returns the message and its epoch.
func (h *Handshake) Public(b []byte, want mls.ContentType) (*mls.PublicMessage, error) {
	m, err := mls.ParseMessage(b)
	if err != nil {
		return nil, suiteOr(err, wire.CodeInvalidMessage)
	}
	p := m.PublicMessage
	switch {
	case p == nil || p.ContentType() != want:
		return nil, wire.Errorf(wire.CodeInvalidMessage, "Commits and proposals travel as PublicMessage, each by its own call")
	case string(p.AuthenticatedData()) != string(h.Delivery[:]):
		return nil, wire.Errorf(wire.CodeInvalidMessage, "the message's authenticated_data must be its delivery id")
	}
	return p, inGroup(p.GroupID(), h.Channel, h.Generation)
}

// Commit applies a Commit that was accepted at a time, and checks that the GroupInfo is of the epoch that begins and signed
// by who commits.
func (s *State) Commit(h *Handshake, p *mls.PublicMessage, groupInfo []byte, at time.Time) (*Change, error) {
	next, done, err := s.process(h, p, at)
	if err != nil {
		return nil, err
	}
	c := &Change{External: done.External, Next: next}
	if err := c.read(s, h, p.Commit(), done); err != nil {
		return nil, err
	}
	if err := next.unique(); err != nil {
		return nil, err
	}
	return c, next.checkGroupInfo(groupInfo, done.Sender)
}

// Propose applies a proposal of a member.
func (s *State) Propose(h *Handshake, p *mls.PublicMessage, at time.Time) (*Change, error) {
	if p.Sender().Type != mls.SenderMember {
		return nil, wire.Errorf(wire.CodeInvalidMessage, "only members of the group propose")
	}
	next, done, err := s.process(h, p, at)
	if err != nil {
		return nil, err
	}
	c := &Change{Next: next}
	return c, c.add(s, h.Sender, done.Proposal, false)
}

func (s *State) process(h *Handshake, p *mls.PublicMessage, at time.Time) (*State, *mls.Processed, error) {
	next := s.public.Clone()
	done, err := next.Process(p, at)
	if err != nil {
		return nil, nil, suiteOr(err, wire.CodeInvalidMessage)
	}
	if memberOf(done.SenderCredential) != h.Sender {
		return nil, nil, wire.Errorf(wire.CodePermissionDenied, "the message is signed by another device than the one that sends it")
	}
	return &State{next}, done, nil
}

// read lists what a Commit does, by whom each part was asked for.
func (c *Change) read(before *State, h *Handshake, commit *mls.Commit, done *mls.Processed) error {
	for _, p := range commit.Proposals {
		by, proposal := h.Sender, p.Proposal
		if p.Ref != nil {
			received, sender, ok := before.public.Proposal(*p.Ref)
			if !ok || sender.Type != mls.SenderMember {
				return wire.Errorf(wire.CodeInvalidMessage, "the Commit refers to a proposal that the cell does not have")
			}
			proposal, by = received, before.at(sender.Leaf)
		}
		if err := c.add(before, by, proposal, p.Ref != nil); err != nil {
			return err
		}
	}
	if done.External {
		for i := range c.Removes {
			c.Removes[i].Replace = true // The engine lets an external Commit remove nothing else.
		}
		cert, err := devicecert.Parse(done.SenderCredential.Identity)
		if err != nil {
			return wire.Errorf(wire.CodeInvalidMessage, "%v", err)
		}
		c.Adds = append(c.Adds, Act{By: h.Sender, Device: h.Sender, Root: cert.RootKey})
	}
	return nil
}

// at returns the member at a leaf.
func (s *State) at(i mls.LeafIndex) Member {
	for _, m := range s.public.Members() {
		if m.Index == i {
			return memberOf(m.Credential)
		}
	}
	return Member{}
}

func (c *Change) add(before *State, by Member, p *mls.Proposal, byRef bool) error {
	switch p.Type {
	case mls.ProposalAdd:
		cert, err := devicecert.Parse(p.Add.Credential().Identity)
		if err != nil {
			return wire.Errorf(wire.CodeInvalidMessage, "%v", err)
		}
		c.Adds = append(c.Adds, Act{By: by, Device: Member{cert.AccountID, cert.DeviceID}, Root: cert.RootKey, ByRef: byRef})
	case mls.ProposalRemove:
		c.Removes = append(c.Removes, Act{By: by, Device: before.at(p.Remove), ByRef: byRef})
	case mls.ProposalGroupContextExtensions:
		c.Extends = append(c.Extends, Act{By: by, ByRef: byRef})
	case mls.ProposalReInit:
		return wire.Errorf(wire.CodeInvalidMessage, "a group is not reinitialized: its channel goes on to its next generation")
	}
	return nil
}

// unique checks that no device has two leaves.
func (s *State) unique() error {
	seen := map[ids.ID]bool{}
	for _, m := range s.Members() {
		if seen[m.DeviceID] {
			return wire.Errorf(wire.CodeInvalidMessage, "device %s would have two leaves in the group", m.DeviceID)
		}
		seen[m.DeviceID] = true
	}
	return nil
}

func (s *State) checkGroupInfo(b []byte, committer mls.LeafIndex) error {
	m, err := mls.ParseMessage(b)
	if err != nil {
		return suiteOr(err, wire.CodeInvalidMessage)
	}
	if m.GroupInfo == nil {
		return wire.Errorf(wire.CodeInvalidMessage, "the MLSMessage holds no GroupInfo")
	}
	if err := s.public.VerifyGroupInfo(m.GroupInfo); err != nil {
		return wire.Errorf(wire.CodeInvalidMessage, "the GroupInfo is not of the epoch that the Commit begins: %v", err)
	}
	if _, ok := m.GroupInfo.ExternalPub(); !ok {
		return wire.Errorf(wire.CodeInvalidMessage, "the GroupInfo has no external_pub")
	}
	if m.GroupInfo.Signer != committer {
		return wire.Errorf(wire.CodeInvalidMessage, "the GroupInfo is signed by another member than the Commit")
	}
	return nil
}

// HasTree reports whether a stored GroupInfo holds its ratchet tree.
func HasTree(groupInfo []byte) bool {
	m, err := mls.ParseMessage(groupInfo)
	if err != nil || m.GroupInfo == nil {
		return false
	}
	_, ok := m.GroupInfo.Extensions.Find(mls.ExtensionRatchetTree)
	return ok
}
