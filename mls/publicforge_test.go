package mls

import (
	"errors"
	"slices"
)

// forger makes the Commits and proposals that an attacker inside or outside the
// group could make: well formed, signed and tagged, and against the rules.
type forger struct {
	*publicWorld
	by     *peer // a member
	victim *peer // another one
	// relayed: everyone received a proposal for this forgery.
	relayed bool
	// secretSize, if not 0, is the size of path secrets that do not fit the path's keys.
	secretSize int
}

func value(p *Proposal) ProposalOrRef { return ProposalOrRef{Proposal: p} }

func (f *forger) add(kp *KeyPackage) ProposalOrRef {
	return value(&Proposal{Type: ProposalAdd, Add: kp})
}

func (f *forger) remove(i LeafIndex) ProposalOrRef {
	return value(&Proposal{Type: ProposalRemove, Remove: i})
}

func (f *forger) extensions(x Extensions) ProposalOrRef {
	return value(&Proposal{Type: ProposalGroupContextExtensions, GroupContextExtensions: x})
}

func (f *forger) psk(id *PreSharedKeyID) ProposalOrRef {
	return value(&Proposal{Type: ProposalPSK, PSK: id.withNonce()})
}

// keyPackage returns a stranger's key package, changed and signed again.
func (f *forger) keyPackage(change func(*KeyPackage, *LeafNode)) *KeyPackage {
	return f.stranger("forged").resigned(change)
}

// refer lets everyone receive a proposal of a member, and refers to it.
func (f *forger) refer(by *peer, p *Proposal) ProposalOrRef {
	a := by.newContent(ContentProposal, randomBytes(8))
	a.wireFormat = WireFormatPublicMessage
	a.content.proposal = p
	by.signContent(a)
	m := newPublicMessage(a, by.cur.encoded, by.cur.secrets.membership)
	for _, to := range f.peers {
		checker := to.checker(testNow)
		received, err := checker.received(to.cur.received, &m.auth)
		if err != nil {
			f.t.Fatal(err)
		}
		to.cur.received = received
	}
	if _, err := f.follower.Process(m, testNow); err != nil {
		f.t.Fatal(err)
	}
	f.keep()
	f.relayed = true
	ref := a.proposalRef()
	return ProposalOrRef{Ref: &ref}
}

// update makes an Update of p's leaf, changed and signed.
func (f *forger) update(p *peer, change func(*LeafNode)) *Proposal {
	l, _ := p.updatedLeaf()
	change(l)
	l.sign(p.signer, p.GroupID(), p.own)
	return &Proposal{Type: ProposalUpdate, Update: l}
}

// commit makes a Commit with exactly these proposals. If the engine can apply them,
// the path is a true one. change may spoil the path before it is encrypted, spoil
// afterwards.
func (f *forger) commit(withPath bool, change func(*LeafNode), spoil func(*Commit), proposals ...ProposalOrRef) *PublicMessage {
	by := f.by
	a := by.newContent(ContentCommit, nil)
	a.wireFormat = WireFormatPublicMessage
	a.content.commit = &Commit{Proposals: proposals}
	if withPath {
		a.content.commit.Path = f.path(by, proposals, change)
	}
	if spoil != nil {
		spoil(a.content.commit)
	}
	m := &PublicMessage{auth: *a}
	m.auth.confirmationTag = make([]byte, hashSize)
	f.reseal(m, by, sealSignature, nil)
	return m
}

func (f *forger) path(by *peer, proposals []ProposalOrRef, change func(*LeafNode)) *UpdatePath {
	t, context, added := by.cur.tree.clone(), by.cur.context, []LeafIndex(nil)
	entries, err := resolve(by.cur.received, &Commit{Proposals: proposals}, Sender{Type: SenderMember, Leaf: by.own})
	if err == nil {
		if tr, err := newTransition(by.checker(testNow), entries, by.own, nil); err == nil {
			t, context, added = tr.tree, tr.context, tr.added
		}
	}
	leaf := *t.leaf(by.own)
	signer := by.signer
	if change != nil {
		change(&leaf)
		if s, ok := f.signers[string(leaf.SignatureKey)]; ok {
			signer = s
		}
	}
	p := t.generatePath(by.own, leaf, signer, by.GroupID())
	if f.secretSize > 0 {
		for x := range p.secrets {
			p.secrets[x] = randomBytes(f.secretSize)
		}
	}
	h := t.treeHash()
	context.TreeHash = h[:]
	if err := p.encrypt(t, added, encode(&context)); err != nil {
		f.t.Fatal(err)
	}
	return p.path
}

// resign signs the leaf of a path again.
func (f *forger) resign(c *Commit) { c.Path.LeafNode.sign(f.by.signer, f.by.GroupID(), f.by.own) }

// fit computes the parent hash again, and signs the leaf.
func (f *forger) fit(c *Commit) {
	content := &framedContent{groupID: f.by.GroupID(), sender: Sender{Type: SenderMember, Leaf: f.by.own}, commit: c}
	f.refit(content, c.Path, func(LeafIndex) { f.resign(c) })
}

// forgery is a message that must be refused, or accepted if want is nil. only is the
// class of wantVerdict that at least one member must then refuse it by, and none by
// another; if it is empty, all members must accept as well.
type forgery struct {
	name string
	m    func(*forger) *PublicMessage
	want error
	only string
}

// blank returns a blank leaf in the tree, or one outside.
func (f *forger) blank() LeafIndex {
	t := f.follower.state.tree
	if i := slices.Index(t.leaves, nil); i >= 0 {
		return LeafIndex(i)
	}
	return LeafIndex(len(t.leaves))
}

func (f *forger) value(withPath bool, proposals ...ProposalOrRef) *PublicMessage {
	return f.commit(withPath, nil, nil, proposals...)
}

func (f *forger) spoiled(spoil func(*Commit), proposals ...ProposalOrRef) *PublicMessage {
	return f.commit(true, nil, spoil, proposals...)
}

func proposalForgeries() []forgery {
	reinit := func(version uint16) ProposalOrRef {
		return value(&Proposal{Type: ProposalReInit, ReInit: &ReInit{GroupID: []byte("next"), Version: version, CipherSuite: 1}})
	}
	grease := func(*KeyPackage, *LeafNode) {}
	return []forgery{
		{"empty without a path", func(f *forger) *PublicMessage { return f.value(false) }, ErrInvalidCommit, ""},
		{"remove without a path", func(f *forger) *PublicMessage { return f.value(false, f.remove(f.victim.own)) }, ErrInvalidCommit, ""},
		{"own removal", func(f *forger) *PublicMessage { return f.value(true, f.remove(f.by.own)) }, ErrInvalidProposal, ""},
		{"removed twice", func(f *forger) *PublicMessage {
			return f.value(true, f.remove(f.victim.own), f.remove(f.victim.own))
		}, ErrInvalidProposal, ""},
		{"removed by value and by reference", func(f *forger) *PublicMessage {
			return f.value(true, f.refer(f.by, &Proposal{Type: ProposalRemove, Remove: f.victim.own}), f.remove(f.victim.own))
		}, ErrInvalidProposal, ""},
		{"updated and removed", func(f *forger) *PublicMessage {
			return f.value(true, f.refer(f.victim, f.update(f.victim, func(*LeafNode) {})), f.remove(f.victim.own))
		}, ErrInvalidProposal, ""},
		{"updated twice", func(f *forger) *PublicMessage {
			update := func() ProposalOrRef { return f.refer(f.victim, f.update(f.victim, func(*LeafNode) {})) }
			return f.value(true, update(), update())
		}, ErrInvalidProposal, ""},
		{"blank leaf removed", func(f *forger) *PublicMessage { return f.value(true, f.remove(f.blank())) }, ErrNoSuchMember, ""},
		{"removed far outside", func(f *forger) *PublicMessage { return f.value(true, f.remove(1<<32-1)) }, ErrNoSuchMember, ""},
		{"own update by value", func(f *forger) *PublicMessage {
			return f.value(true, value(f.update(f.by, func(*LeafNode) {})))
		}, ErrInvalidProposal, ""},
		{"own update by reference", func(f *forger) *PublicMessage {
			return f.value(true, f.refer(f.by, f.update(f.by, func(*LeafNode) {})))
		}, ErrInvalidProposal, ""},
		{"two updates to one key", func(f *forger) *PublicMessage {
			key := newHPKEKeyPair().public
			same := func(l *LeafNode) { l.EncryptionKey = key }
			first := f.refer(f.victim, f.update(f.victim, same))
			return f.commit(true, func(l *LeafNode) {}, func(c *Commit) {
				c.Path.LeafNode.EncryptionKey = key
				f.resign(c)
			}, first)
		}, ErrKeyReuse, ""},
		{"one key package twice", func(f *forger) *PublicMessage {
			kp := f.keyPackage(grease)
			return f.value(false, f.add(kp), f.add(kp))
		}, ErrKeyReuse, ""},
		{"one signature key added twice", func(f *forger) *PublicMessage {
			p := f.stranger("forged")
			first := p.bundle.KeyPackage()
			p.renew(f.t)
			return f.value(false, f.add(first), f.add(p.bundle.KeyPackage()))
		}, ErrKeyReuse, ""},
		{"signature key of a member", func(f *forger) *PublicMessage {
			p := newPeer(f.t, "twin")
			p.signer = f.victim.signer
			p.renew(f.t)
			return f.value(false, f.add(p.bundle.KeyPackage()))
		}, ErrKeyReuse, ""},
		{"encryption key of a member", func(f *forger) *PublicMessage {
			return f.value(false, f.add(f.keyPackage(func(_ *KeyPackage, l *LeafNode) {
				l.EncryptionKey = f.follower.state.tree.leaf(f.victim.own).EncryptionKey
			})))
		}, ErrKeyReuse, ""},
		{"expired key package", func(f *forger) *PublicMessage {
			return f.value(false, f.add(f.keyPackage(func(_ *KeyPackage, l *LeafNode) { l.NotAfter = uint64(testNow.Unix()) - 1 })))
		}, ErrExpired, ""},
		{"key package of tomorrow", func(f *forger) *PublicMessage {
			return f.value(false, f.add(f.keyPackage(func(_ *KeyPackage, l *LeafNode) { l.NotBefore = uint64(testNow.Unix()) + 1 })))
		}, ErrNotYetValid, ""},
		{"key package of another suite", func(f *forger) *PublicMessage {
			return f.value(false, f.add(f.keyPackage(func(kp *KeyPackage, _ *LeafNode) { kp.CipherSuite = 2 })))
		}, ErrUnsupportedSuite, ""},
		{"key package of another version", func(f *forger) *PublicMessage {
			return f.value(false, f.add(f.keyPackage(func(kp *KeyPackage, _ *LeafNode) { kp.Version = 2 })))
		}, ErrUnsupportedVersion, ""},
		{"one key for both uses", func(f *forger) *PublicMessage {
			return f.value(false, f.add(f.keyPackage(func(kp *KeyPackage, l *LeafNode) { kp.InitKey = l.EncryptionKey })))
		}, ErrKeyReuse, ""},
		{"key package with a leaf of an update", func(f *forger) *PublicMessage {
			return f.value(false, f.add(f.keyPackage(func(_ *KeyPackage, l *LeafNode) { l.Source = LeafFromUpdate })))
		}, ErrInvalidLeaf, ""},
		{"no cipher suites", func(f *forger) *PublicMessage {
			return f.value(false, f.add(f.keyPackage(func(_ *KeyPackage, l *LeafNode) { l.Capabilities.CipherSuites = nil })))
		}, ErrUnsupportedCapability, ""},
		{"extension that is not listed", func(f *forger) *PublicMessage {
			return f.value(false, f.add(f.keyPackage(func(_ *KeyPackage, l *LeafNode) { l.Extensions = Extensions{{Type: 0xf0f0}} })))
		}, ErrUnsupportedCapability, ""},
		{"newcomer that lacks what the group will need", func(f *forger) *PublicMessage {
			need := Extensions{RequiredCapabilities{Extensions: []ExtensionType{ExtensionLastResort}}.Extension()}
			poor := f.keyPackage(func(_ *KeyPackage, l *LeafNode) { l.Capabilities.Extensions = nil })
			return f.value(true, f.extensions(need), f.add(poor))
		}, ErrUnsupportedCapability, ""},
		{"extension that nobody supports", func(f *forger) *PublicMessage {
			return f.value(true, f.extensions(Extensions{{Type: 0xf0f0}}))
		}, ErrUnsupportedCapability, ""},
		{"required capabilities that do not decode", func(f *forger) *PublicMessage {
			return f.value(true, f.extensions(Extensions{{Type: ExtensionRequiredCapabilities, Data: []byte{1}}}))
		}, ErrInvalidProposal, ""},
		{"external senders that do not decode", func(f *forger) *PublicMessage {
			return f.value(true, f.extensions(Extensions{{Type: ExtensionExternalSenders, Data: []byte{1}}}))
		}, ErrInvalidProposal, ""},
		{"extensions twice", func(f *forger) *PublicMessage { return f.value(true, f.extensions(nil), f.extensions(nil)) }, ErrInvalidProposal, ""},
		{"extensions without a path", func(f *forger) *PublicMessage { return f.value(false, f.extensions(nil)) }, ErrInvalidCommit, ""},
		{"psk twice", func(f *forger) *PublicMessage {
			p := f.psk(&PreSharedKeyID{Type: PSKExternal, ID: []byte("known")})
			return f.value(false, p, p)
		}, ErrInvalidProposal, ""},
		{"psk with a short nonce", func(f *forger) *PublicMessage {
			return f.value(false, value(&Proposal{Type: ProposalPSK, PSK: &PreSharedKeyID{Type: PSKExternal, Nonce: make([]byte, 31)}}))
		}, ErrInvalidProposal, ""},
		{"psk for a branch", func(f *forger) *PublicMessage {
			return f.value(false, f.psk(&PreSharedKeyID{Type: PSKResumption, Usage: ResumptionBranch}))
		}, ErrInvalidProposal, ""},
		{"unknown psk", func(f *forger) *PublicMessage {
			return f.value(false, f.psk(&PreSharedKeyID{Type: PSKExternal, ID: []byte("unknown")}))
		}, nil, "unknown psk"},
		{"resumption psk of an epoch to come", func(f *forger) *PublicMessage {
			return f.value(false, f.psk(&PreSharedKeyID{
				Type: PSKResumption, Usage: ResumptionApplication, GroupID: []byte("group"), Epoch: f.follower.Epoch() + 1,
			}))
		}, nil, "unknown psk"},
		{"reinit and more", func(f *forger) *PublicMessage { return f.value(false, reinit(1), f.add(f.keyPackage(grease))) }, ErrInvalidProposal, ""},
		{"reinit to version 0", func(f *forger) *PublicMessage { return f.value(false, reinit(0)) }, ErrInvalidProposal, ""},
		{"external init by a member", func(f *forger) *PublicMessage {
			return f.value(true, value(&Proposal{Type: ProposalExternalInit, ExternalInit: make([]byte, 32)}))
		}, ErrInvalidProposal, ""},
		{"unknown reference", func(f *forger) *PublicMessage { return f.value(true, ProposalOrRef{Ref: &ProposalRef{1}}) }, ErrUnknownProposal, ""},
		{"one reference twice", func(f *forger) *PublicMessage {
			r := f.refer(f.by, &Proposal{Type: ProposalAdd, Add: f.keyPackage(grease)})
			return f.value(false, r, r)
		}, ErrKeyReuse, ""},
		{"update that its member did not make", func(f *forger) *PublicMessage {
			return f.value(true, f.refer(f.victim, f.update(f.victim, func(*LeafNode) {})))
		}, nil, "own update"},
		{"banned newcomer", func(f *forger) *PublicMessage {
			return f.value(false, f.add(f.keyPackage(func(_ *KeyPackage, l *LeafNode) { l.Credential = BasicCredential([]byte("banned")) })))
		}, ErrCredential, ""},
	}
}

func pathForgeries() []forgery {
	return []forgery{
		{"path where none is needed", func(f *forger) *PublicMessage {
			return f.value(true, f.add(f.keyPackage(func(*KeyPackage, *LeafNode) {})))
		}, nil, ""},
		{"path of before the removal", func(f *forger) *PublicMessage {
			stale := f.path(f.by, nil, nil)
			return f.spoiled(func(c *Commit) { c.Path = stale }, f.remove(f.victim.own))
		}, ErrInvalidCommit, ""},
		{"one node too few", func(f *forger) *PublicMessage {
			return f.spoiled(func(c *Commit) { c.Path.nodes = c.Path.nodes[1:] })
		}, ErrInvalidCommit, ""},
		{"one node too many", func(f *forger) *PublicMessage {
			return f.spoiled(func(c *Commit) { c.Path.nodes = append(c.Path.nodes, c.Path.nodes[0]) })
		}, ErrInvalidCommit, ""},
		{"wrong parent hash", func(f *forger) *PublicMessage {
			return f.spoiled(func(c *Commit) { c.Path.LeafNode.ParentHash = randomBytes(hashSize); f.resign(c) })
		}, ErrInvalidCommit, ""},
		{"no parent hash", func(f *forger) *PublicMessage {
			return f.spoiled(func(c *Commit) { c.Path.LeafNode.ParentHash = nil; f.resign(c) })
		}, ErrInvalidCommit, ""},
		{"leaf of an update", func(f *forger) *PublicMessage {
			return f.spoiled(func(c *Commit) { c.Path.LeafNode.Source = LeafFromUpdate; f.resign(c) })
		}, ErrInvalidCommit, ""},
		{"leaf of a key package", func(f *forger) *PublicMessage {
			return f.spoiled(func(c *Commit) { c.Path.LeafNode.Source = LeafFromKeyPackage; f.resign(c) })
		}, ErrInvalidCommit, ""},
		{"leaf that is not signed", func(f *forger) *PublicMessage {
			return f.spoiled(func(c *Commit) { c.Path.LeafNode.Signature = nil })
		}, ErrSignature, ""},
		{"leaf signed for another place", func(f *forger) *PublicMessage {
			return f.spoiled(func(c *Commit) { c.Path.LeafNode.sign(f.by.signer, f.by.GroupID(), f.by.own+1) })
		}, ErrSignature, ""},
		{"leaf signed for another group", func(f *forger) *PublicMessage {
			return f.spoiled(func(c *Commit) { c.Path.LeafNode.sign(f.by.signer, []byte("other"), f.by.own) })
		}, ErrSignature, ""},
		{"encryption key that stays", func(f *forger) *PublicMessage {
			return f.spoiled(func(c *Commit) {
				c.Path.LeafNode.EncryptionKey = f.follower.state.tree.leaf(f.by.own).EncryptionKey
				f.resign(c)
			})
		}, ErrKeyReuse, ""},
		{"encryption key of another member", func(f *forger) *PublicMessage {
			return f.spoiled(func(c *Commit) {
				c.Path.LeafNode.EncryptionKey = f.follower.state.tree.leaf(f.victim.own).EncryptionKey
				f.resign(c)
			})
		}, ErrKeyReuse, ""},
		{"node key of another member", func(f *forger) *PublicMessage {
			return f.spoiled(func(c *Commit) {
				c.Path.nodes[0].encryptionKey = f.follower.state.tree.leaf(f.victim.own).EncryptionKey
				f.fit(c)
			})
		}, ErrKeyReuse, ""},
		{"node key of the leaf", func(f *forger) *PublicMessage {
			return f.spoiled(func(c *Commit) { c.Path.nodes[0].encryptionKey = c.Path.LeafNode.EncryptionKey; f.fit(c) })
		}, ErrKeyReuse, ""},
		{"node key of 31 bytes", func(f *forger) *PublicMessage {
			return f.spoiled(func(c *Commit) { c.Path.nodes[0].encryptionKey = c.Path.nodes[0].encryptionKey[1:]; f.fit(c) })
		}, ErrInvalidCommit, ""},
		{"node key that nobody knows", func(f *forger) *PublicMessage {
			return f.spoiled(func(c *Commit) { c.Path.nodes[0].encryptionKey = newHPKEKeyPair().public; f.fit(c) })
		}, nil, "path secret"},
		{"one ciphertext too many", func(f *forger) *PublicMessage {
			return f.spoiled(func(c *Commit) { n := &c.Path.nodes[0]; n.secrets = append(n.secrets, n.secrets[0]) })
		}, ErrInvalidCommit, ""},
		{"one ciphertext too few", func(f *forger) *PublicMessage {
			return f.spoiled(func(c *Commit) { n := &c.Path.nodes[0]; n.secrets = n.secrets[1:] })
		}, ErrInvalidCommit, ""},
		{"path encrypted to the newcomer as well", func(f *forger) *PublicMessage {
			kp := f.keyPackage(func(*KeyPackage, *LeafNode) {})
			return f.spoiled(func(c *Commit) {
				last := &c.Path.nodes[len(c.Path.nodes)-1]
				for _, n := range c.Path.nodes {
					last.secrets = append(last.secrets, n.secrets...)
				}
			}, f.add(kp))
		}, ErrInvalidCommit, ""},
		{"secrets of another context", func(f *forger) *PublicMessage {
			return f.spoiled(func(c *Commit) {
				for i := range c.Path.nodes {
					for j := range c.Path.nodes[i].secrets {
						c.Path.nodes[i].secrets[j], _ = encryptWithLabel(f.follower.state.tree.leaf(f.victim.own).EncryptionKey, "UpdatePathNode", nil, make([]byte, 32))
					}
				}
			})
		}, nil, "path secret"},
		{"secrets that do not fit", func(f *forger) *PublicMessage {
			f.secretSize = hashSize
			return f.value(true)
		}, nil, "path secret"},
		{"secrets of 31 bytes", func(f *forger) *PublicMessage {
			f.secretSize = hashSize - 1
			return f.value(true)
		}, nil, "path secret"},
		{"another identity", func(f *forger) *PublicMessage {
			return f.commit(true, func(l *LeafNode) { l.Credential = BasicCredential([]byte("x")) }, nil)
		}, ErrCredential, ""},
		{"another signature key", func(f *forger) *PublicMessage {
			p := f.stranger("key")
			return f.commit(true, func(l *LeafNode) { l.SignatureKey = publicOf(p.signer) }, nil)
		}, nil, ""},
		{"signature key of another member", func(f *forger) *PublicMessage {
			return f.commit(true, func(l *LeafNode) { l.SignatureKey = publicOf(f.victim.signer) }, nil)
		}, ErrKeyReuse, ""},
		{"capabilities that do not suffice", func(f *forger) *PublicMessage {
			return f.commit(true, func(l *LeafNode) { l.Capabilities.Credentials = nil }, nil)
		}, ErrUnsupportedCapability, ""},
		{"key of low order", func(f *forger) *PublicMessage {
			return f.spoiled(func(c *Commit) { c.Path.LeafNode.EncryptionKey = make([]byte, hpkeKeySize); f.resign(c) })
		}, ErrInvalidLeaf, ""},
	}
}

func frameForgeries() []forgery {
	reframed := func(change func(*forger, *framedContent)) func(*forger) *PublicMessage {
		return func(f *forger) *PublicMessage {
			m := f.value(true)
			change(f, &m.auth.content)
			f.reseal(m, f.by, sealSignature, nil)
			return m
		}
	}
	return []forgery{
		{"past epoch", reframed(func(_ *forger, c *framedContent) { c.epoch-- }), ErrPastEpoch, ""},
		{"future epoch", reframed(func(_ *forger, c *framedContent) { c.epoch++ }), ErrFutureEpoch, ""},
		{"another group", reframed(func(_ *forger, c *framedContent) { c.groupID = []byte("other") }), ErrWrongGroup, ""},
		{"sender outside the tree", reframed(func(_ *forger, c *framedContent) { c.sender.Leaf = 1 << 20 }), ErrNoSuchMember, ""},
		{"sender is a blank leaf", reframed(func(f *forger, c *framedContent) { c.sender.Leaf = f.blank() }), ErrNoSuchMember, ""},
		{"sender is a service", reframed(func(_ *forger, c *framedContent) { c.sender = Sender{Type: SenderExternal} }), ErrInvalidMessage, ""},
		{"sender wants to be added", reframed(func(_ *forger, c *framedContent) { c.sender = Sender{Type: SenderNewMemberProposal} }), ErrInvalidMessage, ""},
		{"sender joins by a path without external init", reframed(func(_ *forger, c *framedContent) { c.sender = Sender{Type: SenderNewMemberCommit} }), ErrInvalidProposal, ""},
		{"content is application data", reframed(func(_ *forger, c *framedContent) { c.contentType = ContentApplication }), ErrInvalidMessage, ""},
		{"confirmation tag of 31 bytes", func(f *forger) *PublicMessage {
			m := f.value(true)
			m.auth.confirmationTag = m.auth.confirmationTag[1:]
			f.reseal(m, f.by, sealSignature, nil)
			return m
		}, ErrConfirmationTag, ""},
	}
}

// external makes an external Commit by a stranger, or by the victim if it resyncs,
// with a change before it is signed.
func externalForgery(resync bool, change func(*forger, *Commit)) func(*forger) *PublicMessage {
	return func(f *forger) *PublicMessage {
		by, o := f.stranger("external"), ExternalJoinOptions{Validator: f.validator}
		if resync {
			by, o.Resync = f.victim, &f.victim.own
		}
		o.Credential, o.Signer = BasicCredential([]byte(by.name)), by.signer
		j, err := JoinExternal(mustGroupInfo(f.t, f.by), o)
		if err != nil {
			f.t.Fatal(err)
		}
		m := mustParse(f.t, j.Commit).PublicMessage
		change(f, m.auth.content.commit)
		f.reseal(m, by, sealSignature, nil)
		return m
	}
}

func externalForgeries() []forgery {
	with := func(p func(*forger) ProposalOrRef) func(*forger) *PublicMessage {
		return externalForgery(false, func(f *forger, c *Commit) { c.Proposals = append(c.Proposals, p(f)) })
	}
	return []forgery{
		{"external commit", externalForgery(false, func(*forger, *Commit) {}), nil, ""},
		{"resync", externalForgery(true, func(*forger, *Commit) {}), nil, ""},
		{"resync and another removal", externalForgery(true, func(f *forger, c *Commit) {
			c.Proposals = append(c.Proposals, f.remove(f.by.own))
		}), ErrInvalidProposal, ""},
		{"resync of itself twice", externalForgery(true, func(f *forger, c *Commit) {
			c.Proposals = append(c.Proposals, f.remove(f.victim.own))
		}), ErrInvalidProposal, ""},
		{"resync with the old leaf left", externalForgery(true, func(_ *forger, c *Commit) { c.Proposals = c.Proposals[:1] }), ErrInvalidCommit, ""},
		{"evicts a member", with(func(f *forger) ProposalOrRef { return f.remove(f.victim.own) }), ErrInvalidProposal, ""},
		{"removes a blank leaf", with(func(f *forger) ProposalOrRef { return f.remove(f.blank()) }), ErrNoSuchMember, ""},
		{"adds", with(func(f *forger) ProposalOrRef { return f.add(f.keyPackage(func(*KeyPackage, *LeafNode) {})) }), ErrInvalidProposal, ""},
		{"sets extensions", with(func(f *forger) ProposalOrRef { return f.extensions(nil) }), ErrInvalidProposal, ""},
		{"refers", with(func(f *forger) ProposalOrRef {
			return f.refer(f.by, &Proposal{Type: ProposalRemove, Remove: f.victim.own})
		}), ErrInvalidProposal, ""},
		{"no external init", externalForgery(false, func(_ *forger, c *Commit) { c.Proposals = nil }), ErrInvalidProposal, ""},
		{"two external inits", externalForgery(false, func(_ *forger, c *Commit) { c.Proposals = append(c.Proposals, c.Proposals[0]) }), ErrInvalidProposal, ""},
		{"another external init", externalForgery(false, func(_ *forger, c *Commit) {
			c.Proposals[0].Proposal.ExternalInit = newHPKEKeyPair().public
		}), nil, ""},
		{"external init that is no key", externalForgery(false, func(_ *forger, c *Commit) {
			c.Proposals[0].Proposal.ExternalInit = make([]byte, hpkeKeySize)
		}), nil, "external init"},
		{"external without a path", externalForgery(false, func(_ *forger, c *Commit) { c.Path = nil }), ErrInvalidMessage, ""},
		{"external with an unknown psk", with(func(f *forger) ProposalOrRef {
			return f.psk(&PreSharedKeyID{Type: PSKExternal, ID: []byte("unknown")})
		}), nil, "unknown psk"},
	}
}

// tryForgeries tries every forgery, with the tag that it would need if it were right.
func (w *publicWorld) tryForgeries() {
	w.t.Helper()
	if len(w.peers) < 3 {
		return
	}
	follower, public, states := w.follower.Clone(), w.public, map[*peer][]byte{}
	for p, b := range w.states {
		states[p] = b
	}
	for _, fg := range slices.Concat(proposalForgeries(), pathForgeries(), frameForgeries(), externalForgeries()) {
		if fg.name == "banned newcomer" && w.validator == nil {
			continue
		}
		perm := w.rng.Perm(len(w.peers))
		f := &forger{publicWorld: w, by: w.peers[perm[0]], victim: w.peers[perm[1]]}
		w.tryForgery(f, fg, parsedPublic(appendMessage(WireFormatPublicMessage, fg.m(f))))
		if !f.relayed {
			continue
		}
		// What the forgery let everyone receive is taken back.
		w.follower, w.public = follower.Clone(), public
		for p, b := range states {
			w.states[p] = b
			p.Group = w.restored(p)
		}
	}
}

func (w *publicWorld) tryForgery(f *forger, fg forgery, m *PublicMessage) {
	w.t.Helper()
	if m == nil {
		w.t.Fatalf("%s: does not decode", fg.name)
	}
	receivers := slices.DeleteFunc(slices.Clone(w.peers), func(p *peer) bool { return p == f.by })
	w.rng.Shuffle(len(receivers), func(i, j int) { receivers[i], receivers[j] = receivers[j], receivers[i] })
	receivers = receivers[:min(3, len(receivers))]
	if !slices.Contains(receivers, f.victim) {
		receivers = append(receivers, f.victim)
	}
	for _, by := range receivers { // the first that can tell the tag
		if tag, err := w.tagOf(by, m); err == nil && len(m.auth.confirmationTag) == hashSize {
			m.auth.confirmationTag = tag
			*m = *newPublicMessage(&m.auth, by.cur.encoded, by.cur.secrets.membership)
			break
		}
	}
	classes, err := w.try(m, nil, receivers, testNow)
	if err != nil {
		w.t.Fatalf("%s by %s against %s: %v", fg.name, f.by.name, f.victim.name, err)
	}
	w.counts["forgeries"]++
	if _, err := w.follower.Clone().Process(m, testNow); !errors.Is(err, fg.want) {
		w.t.Fatalf("%s: the follower says %v, want %v", fg.name, err, fg.want)
	}
	allowed := []string{"accepted", fg.only}
	if fg.want != nil {
		allowed = []string{"refused"}
	}
	for _, c := range classes {
		if !slices.Contains(allowed, c) {
			w.t.Fatalf("%s: %s, want one of %q", fg.name, c, allowed)
		}
	}
	if fg.only != "" && !slices.Contains(classes, fg.only) {
		w.t.Fatalf("%s: no member refuses it", fg.name)
	}
}
