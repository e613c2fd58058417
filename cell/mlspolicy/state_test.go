package mlspolicy

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/mls"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// followed is a group with what the cell knows of it.
type followed struct {
	t       *testing.T
	channel ids.ID
	group   *mls.Group
	creator device
	state   *State
}

func follow(t *testing.T, creator device, others ...device) *followed {
	t.Helper()
	f := &followed{t: t, channel: ids.New(), creator: creator}
	var err error
	f.group, err = mls.CreateGroup(mls.GroupOptions{GroupID: ids.GroupID(f.channel, 1), Credential: mls.BasicCredential(creator.certificate(creator.root)), Signer: creator.key})
	f.must(err)
	var adds []*mls.KeyPackage
	for _, d := range others {
		adds = append(adds, d.bundle(t, d.certificate(d.root), d.key).KeyPackage())
	}
	pending, err := f.group.Commit(mls.CommitOptions{Adds: adds})
	f.must(err)
	f.must(f.group.Merge(pending))
	g, err := GroupInfo(pending.GroupInfo, f.channel, 1, len(others)+1)
	f.must(err)
	f.state, err = OpenState(g.State, nil)
	f.must(err)
	return f
}

func (f *followed) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *followed) handshake() (*Handshake, []byte) {
	id := ids.NewDelivery(time.Now())
	return &Handshake{Channel: f.channel, Generation: 1, Delivery: id, Sender: Member{f.creator.account.id, f.creator.id}}, id[:]
}

// commit has the cell follow a Commit.
func (f *followed) commit(o mls.CommitOptions) (*Change, *mls.PendingCommit, error) {
	f.t.Helper()
	h, id := f.handshake()
	o.AuthenticatedData = id
	pending, err := f.group.Commit(o)
	f.must(err)
	p, err := h.Public(pending.Commit, mls.ContentCommit)
	f.must(err)
	c, err := f.state.Commit(h, p, pending.GroupInfo, time.Now())
	return c, pending, err
}

func TestTheStateFollowsTheGroup(t *testing.T) {
	t.Parallel()
	alice, bob := makeAccount(), makeAccount()
	phone, laptop, tablet := alice.device(), bob.device(), bob.device()
	f := follow(t, phone, laptop)
	c, pending, err := f.commit(mls.CommitOptions{Adds: []*mls.KeyPackage{tablet.bundle(t, tablet.certificate(bob.root), tablet.key).KeyPackage()}, Removes: []mls.LeafIndex{1}})
	f.must(err)
	me := Member{alice.id, phone.id}
	if len(c.Adds) != 1 || c.Adds[0].Device != (Member{bob.id, tablet.id}) || c.Adds[0].By != me || !c.Adds[0].Root.Equal(bob.public()) || c.External {
		t.Errorf("%+v", c.Adds)
	}
	if len(c.Removes) != 1 || c.Removes[0].Device != (Member{bob.id, laptop.id}) || c.Removes[0].By != me || c.Removes[0].ByRef {
		t.Errorf("%+v", c.Removes)
	}
	if f.state.Epoch() != 1 || len(f.state.Members()) != 2 {
		t.Error("the state before has changed")
	}
	f.must(f.group.Merge(pending))
	f.state = c.Next
	if want := []Member{me, {bob.id, tablet.id}}; c.Next.Epoch() != 2 || !slices.Equal(c.Next.Members(), want) {
		t.Errorf("epoch %d, members %v", c.Next.Epoch(), c.Next.Members())
	}
	encoded, err := c.Next.Encode()
	f.must(err)
	again, err := OpenState(encoded, nil)
	f.must(err)
	fromInfo, err := OpenState(nil, pending.GroupInfo)
	f.must(err)
	for _, s := range []*State{again, fromInfo} {
		if s.Epoch() != 2 || !bytes.Equal(s.RatchetTree(), c.Next.RatchetTree()) {
			t.Error("what was stored is another state")
		}
	}
	if !HasTree(pending.GroupInfo) || HasTree([]byte("x")) {
		t.Error("HasTree")
	}
	_, _, err = f.commit(mls.CommitOptions{ReInit: &mls.ReInit{GroupID: []byte("x"), Version: 1, CipherSuite: 1}})
	if !wire.HasCode(err, wire.CodeInvalidMessage) || !strings.Contains(err.Error(), "reinitialized") {
		t.Errorf("ReInit: %v", err)
	}
}

func TestProposalsKeepTheirAuthor(t *testing.T) {
	t.Parallel()
	alice, bob := makeAccount(), makeAccount()
	f := follow(t, alice.device(), bob.device())
	h, id := f.handshake()
	leaf := mls.LeafIndex(1)
	proposal, err := f.group.Propose(mls.ProposeOptions{Remove: &leaf, AuthenticatedData: id})
	f.must(err)
	p, err := h.Public(proposal, mls.ContentProposal)
	f.must(err)
	c, err := f.state.Propose(h, p, time.Now())
	f.must(err)
	if len(c.Removes) != 1 || c.Next.Proposals() != 1 || f.state.Proposals() != 0 {
		t.Fatalf("%+v", c)
	}
	commit, _, err := f.commit(mls.CommitOptions{}) // Refers to what the state does not have.
	if err == nil {
		t.Fatalf("%+v", commit)
	}
	f.state = c.Next
	commit, _, err = f.commit(mls.CommitOptions{})
	f.must(err)
	if r := commit.Removes; len(r) != 1 || !r[0].ByRef || r[0].By != h.Sender || r[0].Device.AccountID != bob.id {
		t.Errorf("%+v", r)
	}
	if _, err := f.state.Propose(h, p, time.Now()); !wire.HasCode(err, wire.CodeInvalidMessage) {
		t.Errorf("a replay: %v", err)
	}
	other := *h
	other.Sender.DeviceID = ids.New()
	if _, err := f.state.Commit(&other, commitMessage(t, f), nil, time.Now()); !wire.HasCode(err, wire.CodePermissionDenied) {
		t.Errorf("carried by another device: %v", err)
	}
}

func commitMessage(t *testing.T, f *followed) *mls.PublicMessage {
	t.Helper()
	pending, err := f.group.Commit(mls.CommitOptions{})
	f.must(err)
	m, err := mls.ParseMessage(pending.Commit)
	f.must(err)
	return m.PublicMessage
}

// What a member would refuse, the cell refuses: it would be left behind.
func TestAddedKeyPackagesDoNotLiveForEver(t *testing.T) {
	t.Parallel()
	alice, bob := makeAccount(), makeAccount()
	phone := bob.device()
	f := follow(t, alice.device())
	long, err := mls.NewKeyPackage(mls.KeyPackageOptions{Credential: mls.BasicCredential(phone.certificate(bob.root)), Signer: phone.key,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(367 * 24 * time.Hour)})
	f.must(err)
	if _, _, err := f.commit(mls.CommitOptions{Adds: []*mls.KeyPackage{long.KeyPackage()}}); !wire.HasCode(err, wire.CodeInvalidMessage) || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("%v", err)
	}
}

func TestADeviceHasOneLeaf(t *testing.T) {
	t.Parallel()
	alice, bob := makeAccount(), makeAccount()
	phone := bob.device()
	f := follow(t, alice.device(), phone)
	twin := device{bob, phone.id, bob.device().key} // The same device under another key.
	if _, _, err := f.commit(mls.CommitOptions{Adds: []*mls.KeyPackage{twin.bundle(t, twin.certificate(bob.root), twin.key).KeyPackage()}}); !wire.HasCode(err, wire.CodeInvalidMessage) ||
		!strings.Contains(err.Error(), "two leaves") {
		t.Errorf("%v", err)
	}
}
