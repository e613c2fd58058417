package mls

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestChatOfThree(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	for i, from := range peers {
		b, err := from.Encrypt([]byte("hello"), []byte("header"), 0)
		if err != nil {
			t.Fatal(err)
		}
		m := mustParse(t, b).PrivateMessage
		if string(m.GroupID) != "group" || m.Epoch != 1 || m.ContentType != ContentApplication || string(m.AuthenticatedData) != "header" {
			t.Errorf("visible header: %q %d %d %q", m.GroupID, m.Epoch, m.ContentType, m.AuthenticatedData)
		}
		for _, to := range peers {
			if to == from {
				if _, err := to.Process(mustParse(t, b), testNow); !errors.Is(err, ErrOwnMessage) {
					t.Errorf("own message: got %v, want ErrOwnMessage", err)
				}
				continue
			}
			got := to.mustProcess(t, b)
			if got.Kind != Application || string(got.Data) != "hello" || string(got.AuthenticatedData) != "header" ||
				got.Sender != LeafIndex(i) || string(got.SenderCredential.Identity) != from.name || got.Epoch != 1 {
				t.Errorf("%s got %+v", to.name, got)
			}
		}
	}
}

func TestPaddingHidesLength(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 2)
	for _, padded := range []int{64, 256, 20000} {
		sizes := map[int]bool{}
		for _, n := range []int{0, 1, 63, 64, 200, 256, 16383, 16384, 20000} {
			if n > padded {
				continue
			}
			text := bytes.Repeat([]byte("x"), n)
			b, err := peers[0].Encrypt(text, nil, padded)
			if err != nil {
				t.Fatal(err)
			}
			sizes[len(b)] = true
			if got := peers[1].mustProcess(t, b); !bytes.Equal(got.Data, text) {
				t.Errorf("%d bytes padded to %d: got %d bytes", n, padded, len(got.Data))
			}
		}
		if len(sizes) != 1 {
			t.Errorf("padded to %d: sizes %v, want one", padded, sizes)
		}
	}
}

func TestOutOfOrderAndLostMessages(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	a, b := peers[0], peers[1]
	var sent [][]byte
	for i := range 40 {
		sent = append(sent, a.mustEncrypt(t, fmt.Sprint(i)))
	}
	rng := newRand(7)
	order := rng.Perm(len(sent))[:30] // ten are lost
	for _, i := range order {
		if got := b.mustProcess(t, sent[i]); string(got.Data) != fmt.Sprint(i) {
			t.Errorf("message %d: got %q", i, got.Data)
		}
		b.Group = reload(t, b.Group)
		if _, err := b.Process(mustParse(t, sent[i]), testNow); !errors.Is(err, ErrReplay) {
			t.Errorf("message %d again after reload: got %v, want ErrReplay", i, err)
		}
	}
	// The lost ones arrive late, in the next epochs.
	for range maxPastEpochs {
		spread(t, peers, peers[2], peers[2].mustCommit(t, CommitOptions{ForcePath: true}))
		b.Group = reload(t, b.Group)
	}
	for i := range sent {
		_, err := b.Process(mustParse(t, sent[i]), testNow)
		if lost := !slices.Contains(order, i); lost && err != nil || !lost && !errors.Is(err, ErrReplay) {
			t.Errorf("message %d late, lost before %v: %v", i, lost, err)
		}
	}
	spread(t, peers, a, a.mustCommit(t, CommitOptions{ForcePath: true}))
	if _, err := peers[2].Process(mustParse(t, sent[0]), testNow); !errors.Is(err, ErrPastEpoch) {
		t.Errorf("beyond the window: got %v, want ErrPastEpoch", err)
	}
}

func TestMessageOfTheNextEpoch(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 2)
	c := peers[0].mustCommit(t, CommitOptions{ForcePath: true})
	peers[0].mustMerge(t, c)
	early := peers[0].mustEncrypt(t, "early")
	if _, err := peers[1].Process(mustParse(t, early), testNow); !errors.Is(err, ErrFutureEpoch) {
		t.Errorf("got %v, want ErrFutureEpoch", err)
	}
	peers[1].mustProcess(t, c.Commit)
	if got := peers[1].mustProcess(t, early); string(got.Data) != "early" {
		t.Errorf("got %q", got.Data)
	}
	if _, err := peers[1].Process(mustParse(t, c.Commit), testNow); !errors.Is(err, ErrPastEpoch) {
		t.Errorf("commit again: got %v, want ErrPastEpoch", err)
	}
}

// Late messages are read as their senders were then, even if the leaf has another
// owner, or none, by now.
func TestLateMessageOfRemovedMember(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 4)
	a, gone := peers[0], peers[2]
	late := gone.mustEncrypt(t, "late")
	c := a.mustCommit(t, CommitOptions{Removes: []LeafIndex{gone.OwnIndex()}})
	if got := gone.mustProcess(t, c.Commit); !got.SelfRemoved || gone.Active() {
		t.Errorf("removed member sees %+v", got)
	}
	peers = []*peer{a, peers[1], peers[3]}
	spread(t, peers, a, c)
	fresh := newPeer(t, "fresh")
	c = a.mustCommit(t, CommitOptions{Adds: keyPackagesOf([]*peer{fresh})})
	spread(t, peers, a, c)
	fresh.join(t, c.Welcome)
	if fresh.OwnIndex() != 2 {
		t.Fatalf("fresh is at leaf %d", fresh.OwnIndex())
	}
	b := peers[1]
	b.Group = reload(t, b.Group)
	got := b.mustProcess(t, late)
	if string(got.Data) != "late" || string(got.SenderCredential.Identity) != gone.name {
		t.Errorf("got %q from %q", got.Data, got.SenderCredential.Identity)
	}
	wantAgreement(t, append(peers, fresh))
}

func TestRemovedMemberReadsNothingMore(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	gone := peers[1]
	before := peers[2].mustEncrypt(t, "before")
	c := peers[0].mustCommit(t, CommitOptions{Removes: []LeafIndex{1}})
	gone.mustProcess(t, c.Commit)
	if got := gone.mustProcess(t, before); string(got.Data) != "before" {
		t.Errorf("message of the last epoch: %q", got.Data)
	}
	spread(t, []*peer{peers[0], peers[2]}, peers[0], c)
	after := peers[0].mustEncrypt(t, "after")
	if _, err := gone.Process(mustParse(t, after), testNow); !errors.Is(err, ErrFutureEpoch) {
		t.Errorf("message after the removal: %v", err)
	}
	if _, err := gone.Encrypt(nil, nil, 0); !errors.Is(err, ErrRemoved) {
		t.Errorf("encrypt: got %v, want ErrRemoved", err)
	}
	if _, err := gone.Commit(CommitOptions{}); !errors.Is(err, ErrRemoved) {
		t.Errorf("commit: got %v, want ErrRemoved", err)
	}
}

func TestLosingCommitIsDropped(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	a, b := peers[0], peers[1]
	before := marshal(t, a.Group)
	losing := a.mustCommit(t, CommitOptions{Adds: keyPackagesOf(newPeers(t, 1))})
	wantBytes2(t, "group after Commit", marshal(t, a.Group), before)
	winning := b.mustCommit(t, CommitOptions{Removes: []LeafIndex{2}})
	a.mustProcess(t, winning.Commit)
	b.mustMerge(t, winning)
	if err := a.Merge(losing); !errors.Is(err, ErrStalePending) {
		t.Errorf("merge of the losing commit: got %v, want ErrStalePending", err)
	}
	wantAgreement(t, peers[:2])
	if err := b.Merge(winning); !errors.Is(err, ErrStalePending) {
		t.Errorf("merge twice: got %v, want ErrStalePending", err)
	}
}

func wantBytes2(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: changed", what)
	}
}

func TestPendingCommitSurvivesARestart(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	a, fresh := peers[0], newPeer(t, "fresh")
	c := a.mustCommit(t, CommitOptions{Adds: keyPackagesOf([]*peer{fresh})})
	saved, err := c.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	a.Group = reload(t, a.Group)
	loaded, err := a.UnmarshalPendingCommit(saved)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(loaded.Commit, c.Commit) || !bytes.Equal(loaded.Welcome, c.Welcome) ||
		!bytes.Equal(loaded.GroupInfo, c.GroupInfo) || !slices.EqualFunc(loaded.Added, c.Added, sameMember) {
		t.Error("the pending commit changed")
	}
	// Messages of the old epoch still arrive in between.
	a.mustProcess(t, peers[1].mustEncrypt(t, "meanwhile"))
	spread(t, peers, a, loaded)
	fresh.join(t, c.Welcome)
	wantAgreement(t, append(peers, fresh))
	if _, err := peers[1].UnmarshalPendingCommit(saved); !errors.Is(err, ErrState) {
		t.Errorf("another member loads it: got %v, want ErrState", err)
	}
}

func TestBadCommitLeavesTheGroupUsable(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	a, b := peers[0], peers[1]
	c := a.mustCommit(t, CommitOptions{Adds: keyPackagesOf(newPeers(t, 1)), ForcePath: true})
	before := marshal(t, b.Group)
	// The same Commit, soundly signed and tagged for the membership, with another
	// confirmation tag: everything up to the very last check passes.
	bad := mustParse(t, c.Commit).PublicMessage
	bad.auth.confirmationTag = bytes.Clone(bad.auth.confirmationTag)
	bad.auth.confirmationTag[0] ^= 1
	forged := newPublicMessage(&bad.auth, a.cur.encoded, a.cur.secrets.membership)
	_, err := b.Process(&Message{WireFormat: WireFormatPublicMessage, PublicMessage: forged}, testNow)
	if !errors.Is(err, ErrConfirmationTag) {
		t.Fatalf("got %v, want ErrConfirmationTag", err)
	}
	wantBytes2(t, "group after the bad commit", marshal(t, b.Group), before)
	spread(t, peers, a, c)
	wantAgreement(t, peers)
}

func TestExportAgrees(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 2)
	export := func(p *peer, label, context string, n int) []byte {
		t.Helper()
		b, err := p.Export(label, []byte(context), n)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	x := export(peers[0], "label", "context", 77)
	if !bytes.Equal(x, export(peers[1], "label", "context", 77)) || len(x) != 77 {
		t.Error("members export different secrets")
	}
	if bytes.Equal(x, export(peers[0], "label", "other", 77)) || bytes.Equal(x, export(peers[0], "other", "context", 77)) {
		t.Error("label or context do not matter")
	}
	for _, n := range []int{-1, 255*32 + 1} {
		if _, err := peers[0].Export("label", nil, n); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%d bytes: got %v, want ErrInvalidArgument", n, err)
		}
	}
}

func TestLifetimeIsJudgedAtAcceptance(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 2)
	fresh := newPeer(t, "fresh")
	c := peers[0].mustCommit(t, CommitOptions{Adds: keyPackagesOf([]*peer{fresh})})
	for _, late := range []time.Duration{48 * time.Hour, -48 * time.Hour} {
		_, err := peers[1].Process(mustParse(t, c.Commit), testNow.Add(late))
		if !errors.Is(err, ErrExpired) && !errors.Is(err, ErrNotYetValid) {
			t.Errorf("accepted %v later: got %v", late, err)
		}
	}
	spread(t, peers, peers[0], c)
	fresh.join(t, c.Welcome) // whenever that is
	wantAgreement(t, append(peers, fresh))
}

func TestPSKInCommitAndWelcome(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	store := func(psk string) PSKFunc {
		return func(id *PreSharedKeyID) ([]byte, error) {
			if string(id.ID) != "id" {
				return nil, ErrUnknownPSK
			}
			return []byte(psk), nil
		}
	}
	fresh := newPeer(t, "fresh")
	for _, p := range peers {
		p.SetPSKStore(store("secret"))
	}
	resumption := &PreSharedKeyID{Type: PSKResumption, Usage: ResumptionApplication, GroupID: []byte("group"), Epoch: 1}
	external := &PreSharedKeyID{Type: PSKExternal, ID: []byte("id")}
	c := peers[0].mustCommit(t, CommitOptions{PSKs: []*PreSharedKeyID{external, resumption}})
	spread(t, peers, peers[0], c)
	wantAgreement(t, peers)

	c = peers[1].mustCommit(t, CommitOptions{PSKs: []*PreSharedKeyID{external}, Adds: keyPackagesOf([]*peer{fresh})})
	peers[0].SetPSKStore(store("other"))
	if _, err := peers[0].Process(mustParse(t, c.Commit), testNow); !errors.Is(err, ErrConfirmationTag) {
		t.Errorf("wrong PSK: got %v, want ErrConfirmationTag", err)
	}
	peers[0].SetPSKStore(nil)
	if _, err := peers[0].Process(mustParse(t, c.Commit), testNow); !errors.Is(err, ErrUnknownPSK) {
		t.Errorf("no PSK: got %v, want ErrUnknownPSK", err)
	}
	peers[0].SetPSKStore(store("secret"))
	spread(t, peers, peers[1], c)
	w := mustParse(t, c.Welcome).Welcome
	for psk, want := range map[string]error{"": ErrUnknownPSK, "other": ErrDecrypt, "secret": nil} {
		o := JoinOptions{PSKs: store(psk)}
		if psk == "" {
			o.PSKs = nil
		}
		g, err := JoinGroup(w, fresh.bundle, fresh.signer, o)
		if !errors.Is(err, want) {
			t.Errorf("join with PSK %q: got %v, want %v", psk, err, want)
		}
		fresh.Group = g
		if want == nil {
			wantAgreement(t, append(peers, fresh))
		}
	}
}

func TestCommitOptionsRefused(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	a := peers[0]
	expired, early := newPeer(t, "expired"), newPeer(t, "early")
	o := expired.options()
	o.NotBefore, o.NotAfter = testNow.Add(-2*time.Hour), testNow.Add(-time.Second)
	expired.bundle, _ = NewKeyPackage(o)
	o = early.options()
	o.NotBefore = testNow.Add(time.Second)
	early.bundle, _ = NewKeyPackage(o)
	fresh := newPeer(t, "fresh").bundle.KeyPackage()
	unsupported := Extensions{{Type: 0xf000, Data: nil}}
	tests := []struct {
		name string
		o    CommitOptions
		want error
	}{
		{"expired", CommitOptions{Adds: []*KeyPackage{expired.bundle.KeyPackage()}}, ErrExpired},
		{"not yet valid", CommitOptions{Adds: []*KeyPackage{early.bundle.KeyPackage()}}, ErrNotYetValid},
		{"twice", CommitOptions{Adds: []*KeyPackage{fresh, fresh}}, ErrKeyReuse},
		{"member already", CommitOptions{Adds: []*KeyPackage{peers[1].bundle.KeyPackage()}}, ErrKeyReuse},
		{"nil", CommitOptions{Adds: []*KeyPackage{nil}}, ErrInvalidArgument},
		{"remove nobody", CommitOptions{Removes: []LeafIndex{3}}, ErrNoSuchMember},
		{"remove far outside", CommitOptions{Removes: []LeafIndex{1 << 31}}, ErrNoSuchMember},
		{"remove self", CommitOptions{Removes: []LeafIndex{0}}, ErrInvalidProposal},
		{"remove twice", CommitOptions{Removes: []LeafIndex{1, 1}}, ErrInvalidProposal},
		{"unsupported extension", CommitOptions{GroupContextExtensions: &unsupported}, ErrUnsupportedCapability},
		{"unknown PSK", CommitOptions{PSKs: []*PreSharedKeyID{{Type: PSKExternal}}}, ErrUnknownPSK},
		{"PSK without a type", CommitOptions{PSKs: []*PreSharedKeyID{{}}}, ErrInvalidArgument},
		{"reinit and add", CommitOptions{ReInit: &ReInit{GroupID: []byte("x"), Version: 1, CipherSuite: 1}, Adds: []*KeyPackage{fresh}}, ErrInvalidProposal},
	}
	before := marshal(t, a.Group)
	for _, tt := range tests {
		tt.o.AcceptTime = testNow
		if _, err := a.Commit(tt.o); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	wantBytes2(t, "group", marshal(t, a.Group), before)
}

func TestReInitClosesTheGroup(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	c := peers[0].mustCommit(t, CommitOptions{ReInit: &ReInit{GroupID: []byte("next"), Version: 1, CipherSuite: 1}})
	got := peers[1].mustProcess(t, c.Commit)
	if got.ReInit == nil || string(got.ReInit.GroupID) != "next" {
		t.Errorf("got %+v", got)
	}
	peers[0].mustMerge(t, c)
	for _, p := range peers[:2] {
		p.Group = reload(t, p.Group)
		if _, err := p.Encrypt(nil, nil, 0); p.Active() || !errors.Is(err, ErrRemoved) {
			t.Errorf("%s can still send: %v", p.name, err)
		}
	}
}

func TestGroupContextExtensions(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	x := Extensions{RequiredCapabilities{Credentials: []CredentialType{CredentialBasic}}.Extension()}
	spread(t, peers, peers[1], peers[1].mustCommit(t, CommitOptions{GroupContextExtensions: &x}))
	wantAgreement(t, peers)
	if got := peers[0].Context().Extensions; len(got) != 1 || got[0].Type != ExtensionRequiredCapabilities {
		t.Errorf("extensions %v", got)
	}
}
