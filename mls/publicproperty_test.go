package mls

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// kindsOfError are all errors that a follower or a member can answer with.
var kindsOfError = []error{
	ErrMalformed, ErrTooLarge, ErrInvalidArgument, ErrUnsupportedVersion, ErrUnsupportedSuite, ErrUnsupportedCredential,
	ErrUnsupportedCapability, ErrSignature, ErrExpired, ErrNotYetValid, ErrKeyReuse, ErrCredential, ErrInvalidLeaf,
	ErrInvalidTree, ErrInvalidProposal, ErrInvalidCommit, ErrInvalidMessage, ErrInvalidWelcome, ErrConfirmationTag,
	ErrMembershipTag, ErrDecrypt, ErrReplay, ErrWrongGroup, ErrPastEpoch, ErrFutureEpoch, ErrOwnMessage, ErrUnknownPSK,
	ErrUnknownProposal, ErrNoSuchMember, ErrRemoved,
}

// sameKind reports whether two errors mean the same.
func sameKind(a, b error) bool {
	return !slices.ContainsFunc(kindsOfError, func(k error) bool { return errors.Is(a, k) != errors.Is(b, k) })
}

// evidence says, independently of the engine's verdict, what only a member can find
// wrong with a message.
type evidence struct {
	membershipTag   bool // it is wrong
	confirmationTag bool // it is wrong, or cannot be right
	path            bool // the path's ciphertexts, keys or context are not as they were made
	kem             bool // the KEM output of an external Commit is not as it was made
	psk             bool // a pre-shared key is unknown
	own             bool // the receiver is the author
	update          bool // it commits an Update of the receiver that the receiver did not make
}

// wantVerdict compares the verdicts of the follower and of a member on one message.
// It returns the class of an exception, and an error if there is a difference
// that has no excuse.
func wantVerdict(follower, member error, e evidence) (class string, err error) {
	switch {
	case follower == nil && member == nil:
		return "accepted", nil
	case errors.Is(member, ErrMembershipTag) && e.membershipTag:
		return "membership tag", nil // seen before anything else
	case follower != nil && member != nil:
		if errors.Is(member, ErrOwnMessage) && e.own || sameKind(follower, member) {
			return "refused", nil
		}
		return "", fmt.Errorf("refused for different reasons: follower: %w, member: %w", follower, member)
	case follower != nil:
		return "", fmt.Errorf("the member accepts what the follower refuses: %w", follower)
	}
	says := func(text string) bool { return strings.Contains(member.Error(), text) }
	for _, c := range []struct {
		class string
		is    bool
	}{
		{"own message", e.own && errors.Is(member, ErrOwnMessage)},
		{"confirmation tag", e.confirmationTag && errors.Is(member, ErrConfirmationTag)},
		{"path secret", e.path && errors.Is(member, ErrDecrypt) && says("path secret: ")},
		{"path secret", e.path && errors.Is(member, ErrInvalidCommit) && says("path secret")},
		{"external init", e.kem && errors.Is(member, ErrDecrypt) && !says("path secret")},
		{"unknown psk", e.psk && errors.Is(member, ErrUnknownPSK)},
		{"own update", e.update && errors.Is(member, ErrInvalidCommit) && says("own update")},
	} {
		if c.is {
			return c.class, nil
		}
	}
	return "", fmt.Errorf("the follower accepts what the member refuses: %w", member)
}

// try gives a message to the follower and to members, and compares. genuine, if not
// nil, is the message that m was made from. It returns the class of each member's verdict.
func (w *publicWorld) try(m, genuine *PublicMessage, receivers []*peer, at time.Time) (classes []string, err error) {
	w.t.Helper()
	f := w.follower.Clone()
	_, followerErr := f.Process(m, at)
	b, err := f.MarshalBinary()
	if err != nil {
		w.t.Fatal(err)
	}
	if followerErr != nil && !bytes.Equal(b, w.public) {
		return nil, fmt.Errorf("the follower changed although: %w", followerErr)
	}
	for _, p := range receivers {
		var e evidence
		got, err := p.Process(&Message{WireFormat: WireFormatPublicMessage, PublicMessage: m}, at)
		if err != nil && !sameKind(followerErr, err) {
			e = w.evidenceFor(p, m, genuine)
		}
		class, different := wantVerdict(followerErr, err, e)
		if different != nil {
			return nil, different
		}
		w.counts[class]++
		classes = append(classes, class)
		if err != nil {
			if !bytes.Equal(marshal(w.t, p.Group), w.states[p]) {
				return nil, fmt.Errorf("%s changed although: %w", p.name, err)
			}
			continue
		}
		same := sameState(f, p.Group, got)
		p.Group = w.restored(p)
		if same != nil {
			return nil, same
		}
	}
	return classes, nil
}

// sameState compares follower and member after a message that both accepted.
func sameState(f *PublicGroup, g *Group, got *Processed) error {
	switch {
	case got.SelfRemoved: // it sees nothing of the next epoch
	case !bytes.Equal(f.state.encoded, g.cur.encoded) || !bytes.Equal(f.state.interim, g.cur.interim):
		return fmt.Errorf("both accept, and disagree on the context")
	case !bytes.Equal(f.RatchetTree(), g.RatchetTree()):
		return fmt.Errorf("both accept, and disagree on the tree")
	case !slices.EqualFunc(f.received, g.cur.received, func(a, b proposalEntry) bool { return a.ref == b.ref }):
		return fmt.Errorf("both accept, and disagree on the proposals")
	case f.closed == g.Active():
		return fmt.Errorf("both accept, and disagree on whether the group is closed")
	}
	return nil
}

// evidenceFor looks at what the follower cannot see, without asking Process.
func (w *publicWorld) evidenceFor(p *peer, m, genuine *PublicMessage) (e evidence) {
	c := &m.auth.content
	e.own = c.sender.Type == SenderMember && c.sender.Leaf == p.own
	if c.sender.Type == SenderMember {
		e.membershipTag = !bytes.Equal(computeMAC(p.cur.secrets.membership, m.auth.tbm(p.cur.encoded)), m.membershipTag)
	}
	if c.commit == nil {
		return e
	}
	tag, err := w.tagOf(p, m)
	e.confirmationTag = err != nil || !bytes.Equal(tag, m.auth.confirmationTag)
	tr := w.transitionOf(m)
	if tr == nil {
		return e
	}
	for _, id := range tr.psks {
		_, err := p.psk(id)
		e.psk = e.psk || err != nil
	}
	e.update = slices.Contains(tr.updated, p.own) && p.cur.ownUpdates[string(tr.tree.leaf(p.own).EncryptionKey)] == nil
	before := (*transition)(nil)
	if genuine != nil && genuine.auth.content.commit != nil {
		before = w.transitionOf(genuine)
	}
	e.path = c.commit.Path != nil && (before == nil || genuine.auth.content.commit.Path == nil ||
		!bytes.Equal(encode(&before.context), encode(&tr.context)) ||
		!bytes.Equal(encode(genuine.auth.content.commit.Path), encode(c.commit.Path)))
	e.kem = tr.external && (before == nil || !bytes.Equal(before.kem, tr.kem))
	return e
}

// transitionOf is the public part of a Commit, up to the provisional context.
func (w *publicWorld) transitionOf(m *PublicMessage) *transition {
	if m.Commit() == nil {
		return nil
	}
	entries, err := resolve(w.follower.received, m.Commit(), m.Sender())
	if err != nil || m.Sender().Type == SenderNewMemberCommit && m.Commit().Path == nil {
		return nil
	}
	a := m.auth
	a.confirmationTag = make([]byte, hashSize) // that comes after
	tr, err := stepPublic(proposalChecker{state: &w.follower.state, at: testNow, validator: w.validator}, entries, &a)
	if err != nil {
		return nil
	}
	return tr
}

// tagOf computes the confirmation tag that p would have to find in a Commit.
func (w *publicWorld) tagOf(p *peer, m *PublicMessage) ([]byte, error) {
	tr := w.transitionOf(m)
	if tr == nil {
		return nil, ErrInvalidCommit
	}
	if slices.ContainsFunc(tr.removed, func(r Member) bool { return r.Index == p.own }) {
		return nil, ErrRemoved
	}
	keys, commitSecret, err := p.nextKeys(tr, m.Commit().Path)
	if err != nil {
		return nil, err
	}
	psk, err := p.pskSecret(tr.psks)
	if err != nil {
		return nil, err
	}
	initSecret := p.cur.secrets.init
	if tr.external {
		if initSecret, err = p.cur.secrets.externalInit(tr.kem); err != nil {
			return nil, err
		}
	}
	tr.confirm(&m.auth)
	joiner := joinerSecret(initSecret, commitSecret, encode(&tr.context))
	next, _ := newEpoch(tr.context, tr.tree, entrance{joiner: joiner, psk: psk, keys: keys})
	return next.confirmationTag, nil
}

// seal levels say how much of a changed message is made good again, so that what
// was changed is what it is judged by.
const (
	sealNothing = iota
	sealMembership
	sealSignature
	sealLeaves
	sealTag
	sealLevels
)

// reseal makes good what the change broke: leaves and key packages are signed by
// their owners, the message by its author, and the tags are computed.
func (w *publicWorld) reseal(m *PublicMessage, author *peer, level int, by *peer) {
	a := &m.auth
	c := &a.content
	if level >= sealLeaves {
		w.resignLeaves(c)
	}
	if level >= sealSignature {
		signer := author.signer
		for _, p := range w.peers {
			if c.sender.Type == SenderMember && c.sender.Leaf == p.own {
				signer = p.signer
			}
		}
		a.signature = signWithLabel(signer, "FramedContentTBS", a.tbs(w.peers[0].cur.encoded))
	}
	if level >= sealTag && c.commit != nil {
		if tag, err := w.tagOf(by, m); err == nil {
			a.confirmationTag = tag
		}
	}
	if level >= sealMembership {
		*m = *newPublicMessage(a, w.peers[0].cur.encoded, w.peers[0].cur.secrets.membership)
	}
}

func (w *publicWorld) resignLeaves(c *framedContent) {
	resign := func(l *LeafNode, i LeafIndex) {
		if key, ok := w.signers[string(l.SignatureKey)]; ok {
			l.sign(key, c.groupID, i)
		}
	}
	proposal := func(p *Proposal) {
		switch {
		case p == nil:
		case p.Update != nil:
			resign(p.Update, c.sender.Leaf)
		case p.Add != nil:
			resign(p.Add.LeafNode, 0)
			if key, ok := w.signers[string(p.Add.LeafNode.SignatureKey)]; ok {
				p.Add.Signature = signWithLabel(key, "KeyPackageTBS", p.Add.appendContent(nil))
			}
		}
	}
	proposal(c.proposal)
	if c.commit == nil {
		return
	}
	for _, p := range c.commit.Proposals {
		proposal(p.Proposal)
	}
	if c.commit.Path != nil {
		w.refit(c, c.commit.Path, func(i LeafIndex) { resign(c.commit.Path.LeafNode, i) })
	}
}

// refit gives a path the parent hash that its keys ask for.
func (w *publicWorld) refit(c *framedContent, path *UpdatePath, sign func(LeafIndex)) {
	committer := c.sender.Leaf
	var joiner *LeafNode
	if c.sender.Type == SenderNewMemberCommit {
		joiner = path.LeafNode
	}
	t := w.follower.state.tree.clone()
	if entries, err := resolve(w.follower.received, c.commit, c.sender); err == nil {
		checker := proposalChecker{state: &w.follower.state, at: testNow, validator: w.validator}
		if tr, err := newTransition(checker, entries, committer, joiner); err == nil {
			t, committer = tr.tree, tr.committer
		}
	}
	if int(committer) < len(t.leaves) {
		if steps := t.filteredPath(committer); len(steps) == len(path.nodes) && path.LeafNode.Source == LeafFromCommit {
			keys := make([][]byte, len(steps))
			for n := range steps {
				keys[n] = path.nodes[n].encryptionKey
			}
			path.LeafNode.ParentHash = t.setPath(committer, steps, keys)
		}
	}
	sign(committer)
}

// changed returns m with one place changed at random and made good up to a level, as
// it comes out of the decoder; nil if it does not pass that.
func (w *publicWorld) changed(mu *mutator, s sample, level int, by *peer) (m *PublicMessage, what string) {
	defer func() {
		if recover() != nil { // a union without its content cannot even be encoded
			m = nil
		}
	}()
	c := mustParse(w.t, appendMessage(WireFormatPublicMessage, s.m)).PublicMessage
	if level == sealNothing && w.rng.IntN(2) == 0 {
		b := appendMessage(WireFormatPublicMessage, c)
		i := w.rng.IntN(len(b))
		b[i] ^= 1 << w.rng.IntN(8)
		return parsedPublic(b), fmt.Sprintf("bit of byte %d flipped", i)
	}
	what = mu.change(&c.auth)
	w.reseal(c, s.author, level, by)
	return parsedPublic(appendMessage(WireFormatPublicMessage, c)), what
}

func parsedPublic(b []byte) *PublicMessage {
	m, err := ParseMessage(b)
	if err != nil {
		return nil
	}
	return m.PublicMessage
}

// receiversOf returns two members other than the author, if there are, and rarely
// the author itself.
func (w *publicWorld) receiversOf(author *peer) []*peer {
	out := slices.DeleteFunc(slices.Clone(w.peers), func(p *peer) bool { return p.name == author.name })
	w.rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	out = out[:min(2, len(out))]
	if w.rng.IntN(10) == 0 && slices.Contains(w.peers, author) {
		out = append(out, author)
	}
	return out
}

// TestPublicGroupAcceptsWhatMembersAccept compares the verdicts of a follower and of
// members on genuine messages of every kind and on changed ones, in random groups.
// The number of a group is its seed; QPQ_MLS_HISTORIES makes more of them.
func TestPublicGroupAcceptsWhatMembersAccept(t *testing.T) {
	t.Parallel()
	sizes := []int{2, 3, 6, 14}
	for seed := range uint64(len(sizes) * historiesFactor(t)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newPublicWorld(t, seed, sizes[seed%uint64(len(sizes))])
			samples := slices.Concat(w.proposals(), w.commits())
			mu := &mutator{rng: w.rng}
			for _, s := range samples {
				mu.learn(&mustParse(t, appendMessage(WireFormatPublicMessage, s.m)).PublicMessage.auth)
			}
			for _, s := range samples {
				w.tryChanges(mu, s, 15)
			}
			w.tryForgeries()
			for _, s := range samples { // after all of that
				w.tryGenuine(s)
			}
			t.Logf("seed %d: %d members, %d leaves, %d proposals received: %v", seed, len(w.peers), len(w.follower.state.tree.leaves), len(w.follower.received), w.counts)
		})
	}
}

func (w *publicWorld) tryChanges(mu *mutator, s sample, n int) {
	w.t.Helper()
	for range n {
		receivers := w.receiversOf(s.author)
		if len(receivers) == 0 {
			return
		}
		level := w.rng.IntN(sealLevels)
		m, what := w.changed(mu, s, level, receivers[0])
		if m == nil {
			w.counts["does not decode"]++
			continue
		}
		at := testNow
		if w.rng.IntN(10) == 0 {
			at = at.Add(time.Duration(w.rng.IntN(7)-3) * time.Hour)
		}
		w.counts["changes"]++
		if _, err := w.try(m, s.m, receivers, at); err != nil {
			w.t.Fatalf("%s by %s: %s, made good to level %d: %v", s.name, s.author.name, what, level, err)
		}
	}
}

func (w *publicWorld) tryGenuine(s sample) {
	w.t.Helper()
	receivers := w.receiversOf(s.author)
	classes, err := w.try(s.m, s.m, receivers, testNow)
	if err != nil {
		w.t.Fatalf("%s: %v", s.name, err)
	}
	for i, c := range classes {
		if c != "accepted" && receivers[i].name != s.author.name {
			w.t.Fatalf("%s: a genuine message is not accepted: %s", s.name, c)
		}
	}
}

// The comparison sees every kind of difference.
func TestVerdictsAreCompared(t *testing.T) {
	t.Parallel()
	all := evidence{true, true, true, true, true, true, true}
	wrap := func(err error, text string) error { return fmt.Errorf("%w: %s", err, text) }
	tests := []struct {
		name             string
		follower, member error
		e                evidence
		ok               bool
	}{
		{"both accept", nil, nil, evidence{}, true},
		{"both refuse", ErrSignature, wrap(ErrSignature, "x"), evidence{}, true},
		{"different reasons", ErrSignature, ErrInvalidCommit, all, false},
		{"only the follower refuses", ErrInvalidCommit, nil, all, false},
		{"only the member refuses", nil, ErrInvalidCommit, all, false},
		{"only the member refuses a signature", nil, ErrSignature, all, false},
		{"confirmation tag", nil, ErrConfirmationTag, evidence{confirmationTag: true}, true},
		{"confirmation tag that is right", nil, ErrConfirmationTag, evidence{path: true}, false},
		{"membership tag", nil, ErrMembershipTag, evidence{membershipTag: true}, true},
		{"membership tag that is right", nil, ErrMembershipTag, evidence{}, false},
		{"membership tag first", ErrSignature, ErrMembershipTag, evidence{membershipTag: true}, true},
		{"path", nil, fmt.Errorf("path secret: %w", ErrDecrypt), evidence{path: true}, true},
		{"external init", nil, ErrDecrypt, evidence{kem: true}, true},
		{"external init as it was made", nil, ErrDecrypt, evidence{path: true}, false},
		{"path as it was made", nil, ErrDecrypt, evidence{confirmationTag: true}, false},
		{"path secret", nil, wrap(ErrInvalidCommit, "path secret does not match node 1"), evidence{path: true}, true},
		{"psk", nil, ErrUnknownPSK, evidence{psk: true}, true},
		{"psk that is known", nil, ErrUnknownPSK, evidence{path: true}, false},
	}
	for _, tt := range tests {
		if _, err := wantVerdict(tt.follower, tt.member, tt.e); (err == nil) != tt.ok {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}
