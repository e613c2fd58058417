package mls

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
)

// Group is one member's view of a group. It is not safe for concurrent use. Every
// method that returns an error leaves the Group as it was.
//
// A Group changes by Merge, Process, Propose and Encrypt. Save it (MarshalBinary)
// after each of them and before the effects leave the process: before sending what
// Encrypt or Propose returned, before acknowledging what Process consumed. Commit
// does not change it; what it returns can be saved by itself (PendingCommit).
type Group struct {
	signer    ed25519.PrivateKey
	validator CredentialValidator
	psks      PSKStore
	own       LeafIndex
	cur       *epoch
	past      []*pastEpoch // newest first
	status    status
}

// status says what a member can still do in its group.
type status uint8

const (
	statusActive status = iota
	// statusRemoved: a Commit removed this member. Nothing more is sent. A Commit
	// whose confirmation tag verifies all the same shows that the other one did not
	// take effect, and makes the member active again.
	statusRemoved
	// statusClosed: a ReInit closed the group for everyone.
	statusClosed
)

// Epoch returns the number of the current epoch.
func (g *Group) Epoch() uint64 { return g.cur.context.Epoch }

// GroupID returns the group's id.
func (g *Group) GroupID() []byte { return bytes.Clone(g.cur.context.GroupID) }

// Context returns the current GroupContext. Its slices are shared: do not modify them.
func (g *Group) Context() GroupContext { return g.cur.context }

// Members returns the members from left to right. Their slices are shared: do not
// modify them.
func (g *Group) Members() []Member { return g.cur.tree.members() }

// Member returns the member at leaf i, or ErrNoSuchMember.
func (g *Group) Member(i LeafIndex) (Member, error) {
	l := g.cur.tree.leaf(i)
	if l == nil {
		return Member{}, ErrNoSuchMember
	}
	return l.member(i), nil
}

// OwnIndex returns this member's leaf.
func (g *Group) OwnIndex() LeafIndex { return g.own }

// Active reports whether this member can still send: it was not removed, and the
// group was not closed by a ReInit.
func (g *Group) Active() bool { return g.status == statusActive }

// EpochAuthenticator returns the epoch's authenticator (RFC 9420 §8.7): members
// who see the same value are in the same state.
func (g *Group) EpochAuthenticator() []byte { return bytes.Clone(g.cur.secrets.authenticator) }

// Export derives a secret of length bytes for the application (MLS-Exporter, RFC
// 9420 §8.5). length is at most 8160.
func (g *Group) Export(label string, context []byte, length int) ([]byte, error) {
	if length < 0 || length > 255*hashSize || len(label) > maxOpaque || len(context) > maxOpaque {
		return nil, fmt.Errorf("%w: export of %d bytes", ErrInvalidArgument, length)
	}
	return g.cur.secrets.export(label, context, length), nil
}

// RatchetTree returns the tree as the content of a ratchet_tree extension, for
// JoinOptions.RatchetTree.
func (g *Group) RatchetTree() []byte { return bytes.Clone(g.cur.tree.encode()) }

// GroupInfo returns a signed GroupInfo of the current epoch as an MLSMessage, with
// ratchet_tree and external_pub.
func (g *Group) GroupInfo() ([]byte, error) { return g.describe(withTree | withExternalPub) }

// GroupInfoWithoutTree is GroupInfo without ratchet_tree: whoever joins by it needs
// RatchetTree another way, for ExternalJoinOptions.RatchetTree.
func (g *Group) GroupInfoWithoutTree() ([]byte, error) { return g.describe(withExternalPub) }

func (g *Group) describe(parts groupInfoParts) ([]byte, error) {
	if !g.Active() {
		return nil, ErrRemoved
	}
	return appendMessage(WireFormatGroupInfo, g.cur.groupInfo(g.own, g.signer, parts)), nil
}

// groupInfoParts are the extensions that a GroupInfo carries.
type groupInfoParts uint8

const (
	withTree groupInfoParts = 1 << iota
	withExternalPub
)

// groupInfo makes and signs the GroupInfo of an epoch.
func (e *epoch) groupInfo(own LeafIndex, signer ed25519.PrivateKey, parts groupInfoParts) *GroupInfo {
	gi := &GroupInfo{GroupContext: e.context, ConfirmationTag: e.confirmationTag, Signer: own}
	if parts&withTree != 0 {
		gi.Extensions = append(gi.Extensions, Extension{Type: ExtensionRatchetTree, Data: e.tree.encode()})
	}
	if parts&withExternalPub != 0 {
		gi.Extensions = append(gi.Extensions, externalPubExtension(e.secrets.externalPublic()))
	}
	gi.sign(signer)
	return gi
}

// SetPSKStore sets where external pre-shared keys are looked up, after UnmarshalGroup.
func (g *Group) SetPSKStore(s PSKStore) { g.psks = s }

// psk finds a pre-shared key: resumption PSKs of this group among the epochs that
// are kept, others in the caller's store. The result is the group's own memory.
func (g *Group) psk(id *PreSharedKeyID) ([]byte, error) {
	if id.Type != PSKResumption || !bytes.Equal(id.GroupID, g.cur.context.GroupID) {
		return lookUpPSK(g.psks, id)
	}
	if id.Epoch == g.Epoch() {
		return g.cur.secrets.resumption, nil
	}
	if p := g.pastEpoch(id.Epoch); p != nil {
		return p.resumption, nil
	}
	return lookUpPSK(g.psks, id)
}

func (g *Group) pskSecret(ids []*PreSharedKeyID) ([]byte, error) {
	inputs := make([]pskInput, len(ids))
	for i, id := range ids {
		secret, err := g.psk(id)
		if err != nil {
			return nil, err
		}
		inputs[i] = pskInput{id: id, secret: secret}
	}
	return pskSecret(inputs), nil
}

func (g *Group) pastEpoch(number uint64) *pastEpoch {
	for _, p := range g.past {
		if p.number == number {
			return p
		}
	}
	return nil
}

// memberAt returns who sat at leaf i in epoch number, the current one or a past one.
func (g *Group) memberAt(number uint64, i LeafIndex) (Member, error) {
	for n := len(g.past) - 1; n >= 0; n-- {
		if g.past[n].number < number {
			continue
		}
		if m, ok := g.past[n].replaced[i]; ok {
			if m == nil {
				return Member{}, ErrNoSuchMember
			}
			return *m, nil
		}
	}
	return g.Member(i)
}

// advance enters the next epoch. It is the one place where an epoch ends.
func (g *Group) advance(next *epoch, closes bool) {
	g.past = append([]*pastEpoch{g.cur.retire(g.own, next)}, g.past...)
	for len(g.past) > maxPastEpochs {
		last := len(g.past) - 1
		g.past[last].clear()
		g.past[last] = nil
		g.past = g.past[:last]
	}
	g.cur, g.status = next, statusActive
	if closes {
		g.status = statusClosed
	}
}
