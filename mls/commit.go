package mls

import (
	"bytes"
	"fmt"
	"time"
)

// Commit makes a Commit and everything that goes with it (RFC 9420 §12.4.1). g does
// not change, so that a Commit that loses the race can simply be dropped. Errors:
// ErrInvalidArgument, ErrInvalidProposal with the reason wrapped, ErrNoSuchMember,
// ErrUnknownPSK, ErrRemoved.
func (g *Group) Commit(opts CommitOptions) (*PendingCommit, error) {
	if !g.Active() {
		return nil, ErrRemoved
	}
	if len(opts.AuthenticatedData) > maxOpaque {
		return nil, fmt.Errorf("%w: authenticated data", ErrTooLarge)
	}
	if opts.AcceptTime.IsZero() {
		opts.AcceptTime = time.Now()
	}
	checker := g.checker(opts.AcceptTime)
	entries, err := g.proposalsFor(&opts, &checker)
	if err != nil {
		return nil, err
	}
	tr, err := newTransition(checker, entries, g.own, nil)
	if err != nil {
		return nil, err
	}
	c := &commitMaker{
		g: g, tr: tr, sender: Sender{Type: SenderMember, Leaf: g.own}, authenticatedData: bytes.Clone(opts.AuthenticatedData),
		treeOutOfBand: opts.TreeOutOfBand,
	}
	return c.make(opts.ForcePath || needsPath(entries))
}

func (g *Group) checker(at time.Time) proposalChecker {
	return proposalChecker{state: &g.cur.publicState, at: at, validator: g.validator}
}

// commitMaker holds the parts of a Commit while it is made. g is in the epoch that
// the Commit ends; for an external Commit, in as much of it as the joiner knows.
type commitMaker struct {
	g                 *Group
	tr                *transition
	sender            Sender
	authenticatedData []byte
	treeOutOfBand     bool
	path              *newPath
	psk               []byte
	joiner            []byte
	welcome           []byte // welcome secret
}

func (c *commitMaker) make(withPath bool) (*PendingCommit, error) {
	defer c.clear()
	if err := c.makePath(withPath); err != nil {
		return nil, err
	}
	a := c.sign()
	c.tr.confirm(a)
	next, err := c.enter()
	if err != nil {
		return nil, err
	}
	a.confirmationTag = next.confirmationTag
	m := newPublicMessage(a, c.g.cur.encoded, c.g.cur.secrets.membership)
	p := &PendingCommit{
		Commit:    appendMessage(WireFormatPublicMessage, m),
		GroupInfo: appendMessage(WireFormatGroupInfo, next.groupInfo(c.g.own, c.g.signer, c.tree()|withExternalPub)),
		Added:     c.tr.members(c.tr.added),
		base:      c.g.cur.encoded,
		next:      next,
		closes:    c.tr.reinit != nil,
	}
	if len(c.tr.joiners) == 0 {
		return p, nil
	}
	w, err := c.makeWelcome(next)
	if err != nil {
		return nil, err
	}
	p.Welcome = appendMessage(WireFormatWelcome, w)
	return p, nil
}

func (c *commitMaker) tree() groupInfoParts {
	if c.treeOutOfBand {
		return 0
	}
	return withTree
}

// makePath draws the new path if there is to be one, and settles the new tree.
func (c *commitMaker) makePath(withPath bool) error {
	g, tr := c.g, c.tr
	if withPath {
		c.path = tr.tree.generatePath(g.own, *tr.tree.leaf(g.own), g.signer, tr.context.GroupID)
		tr.steps = c.path.steps
	}
	if err := tr.seal(withPath); err != nil {
		return err
	}
	if !withPath {
		return nil
	}
	return c.path.encrypt(tr.tree, tr.added, encode(&tr.context))
}

func (c *commitMaker) sign() *authenticatedContent {
	g := c.g
	commit := &Commit{}
	for _, e := range c.tr.entries {
		commit.Proposals = append(commit.Proposals, e.entry())
	}
	if c.path != nil {
		commit.Path = c.path.path
	}
	a := g.newContent(ContentCommit, c.authenticatedData)
	a.wireFormat = WireFormatPublicMessage
	a.content.sender = c.sender
	a.content.commit = commit
	g.signContent(a)
	return a
}

func (e proposalEntry) entry() ProposalOrRef {
	if e.byRef {
		return ProposalOrRef{Ref: &e.ref}
	}
	return ProposalOrRef{Proposal: e.proposal}
}

// newContent frames content of the own leaf in the current epoch.
func (g *Group) newContent(t ContentType, authenticatedData []byte) *authenticatedContent {
	return &authenticatedContent{content: framedContent{
		groupID:           g.cur.context.GroupID,
		epoch:             g.cur.context.Epoch,
		sender:            Sender{Type: SenderMember, Leaf: g.own},
		authenticatedData: authenticatedData,
		contentType:       t,
	}}
}

func (g *Group) signContent(a *authenticatedContent) {
	a.signature = signWithLabel(g.signer, "FramedContentTBS", a.tbs(g.cur.encoded))
}

// enter runs the key schedule into the new epoch.
func (c *commitMaker) enter() (*epoch, error) {
	var err error
	if c.psk, err = c.g.pskSecret(c.tr.psks); err != nil {
		return nil, err
	}
	keys := c.g.cur.keys.clone()
	commitSecret := make([]byte, hashSize)
	if c.path != nil {
		keys, commitSecret = c.path.keys, c.path.commitSecret
	}
	keys.prune(c.tr.tree)
	c.joiner = joinerSecret(c.g.cur.secrets.init, commitSecret, encode(&c.tr.context))
	next, welcome := newEpoch(c.tr.context, c.tr.tree, entrance{joiner: c.joiner, psk: c.psk, keys: keys})
	c.welcome = welcome
	return next, nil
}

// makeWelcome encrypts the new epoch to those who were added (RFC 9420 §12.4.3.1).
func (c *commitMaker) makeWelcome(next *epoch) (*Welcome, error) {
	key, nonce := welcomeKeys(c.welcome)
	gi := next.groupInfo(c.g.own, c.g.signer, c.tree())
	w := &Welcome{
		CipherSuite:        SuiteX25519AES128GCMSHA256Ed25519,
		encryptedGroupInfo: aeadSeal(key, nonce, encode(gi), nil),
	}
	w.secrets = make([]encryptedGroupSecrets, len(c.tr.joiners))
	err := forEach(len(c.tr.joiners), func(n int) error {
		kp := c.tr.joiners[n]
		pt := encode(&groupSecrets{joinerSecret: c.joiner, pathSecret: c.pathSecretFor(c.tr.added[n]), psks: c.tr.psks})
		defer clear(pt)
		ct, err := encryptWithLabel(kp.InitKey, "Welcome", w.encryptedGroupInfo, pt)
		if err != nil {
			return fmt.Errorf("welcome for leaf %d: %w", c.tr.added[n], err)
		}
		w.secrets[n] = encryptedGroupSecrets{newMember: kp.Ref(), secrets: ct}
		return nil
	})
	return w, err
}

// pathSecretFor returns the secret of the lowest node that is above both leaves.
func (c *commitMaker) pathSecretFor(i LeafIndex) []byte {
	if c.path == nil {
		return nil
	}
	for _, s := range c.path.steps {
		if s.node.covers(i) {
			return c.path.secrets[s.node]
		}
	}
	return nil
}

func (c *commitMaker) clear() {
	clear(c.psk)
	clear(c.joiner)
	clear(c.welcome)
	if c.path != nil {
		c.path.clear()
	}
}

// Merge applies a Commit made by this Group: it enters the next epoch. It returns
// ErrStalePending if the Group has left the epoch that p was made in. p must not be
// used again.
func (g *Group) Merge(p *PendingCommit) error {
	if p.next == nil || !bytes.Equal(p.base, g.cur.encoded) {
		return ErrStalePending
	}
	g.advance(p.next, p.closes)
	p.next = nil
	return nil
}
