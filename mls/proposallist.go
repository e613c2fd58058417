package mls

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"slices"
	"time"
)

// proposalEntry is a proposal with its author. byRef tells whether it came in a
// message of its own.
type proposalEntry struct {
	proposal *Proposal
	sender   Sender
	byRef    bool
	ref      ProposalRef
}

// mayPropose says which proposals a sender from outside may make (RFC 9420 §12.1.8).
func mayPropose(s SenderType, t ProposalType) bool {
	switch s {
	case SenderMember:
		return t != ProposalExternalInit
	case SenderExternal:
		return t != ProposalUpdate && t != ProposalExternalInit
	case SenderNewMemberProposal:
		return t == ProposalAdd
	}
	return false
}

// proposalChecker judges the proposals of one Commit, or one alone (RFC 9420
// §12.1, §12.2).
type proposalChecker struct {
	state     *publicState
	at        time.Time
	validator CredentialValidator
}

// received appends a proposal that came in a message of its own to those of the
// epoch, after its checks. The message's signature has been verified.
func (c *proposalChecker) received(before []proposalEntry, a *authenticatedContent) ([]proposalEntry, error) {
	e := proposalEntry{proposal: a.content.proposal, sender: a.content.sender, byRef: true, ref: a.proposalRef()}
	if !mayPropose(e.sender.Type, e.proposal.Type) {
		return nil, fmt.Errorf("%w: type %d from this kind of sender", ErrInvalidProposal, e.proposal.Type)
	}
	if _, known := findProposal(before, e.ref); known {
		return nil, ErrReplay
	}
	if len(before) >= maxProposals {
		return nil, fmt.Errorf("%w: more than %d proposals in one epoch", ErrTooLarge, maxProposals)
	}
	if err := c.checkOne(e); err != nil {
		return nil, err
	}
	return append(before, e), nil
}

// findProposal finds a proposal of this epoch by its reference.
func findProposal(received []proposalEntry, ref ProposalRef) (proposalEntry, bool) {
	at := slices.IndexFunc(received, func(p proposalEntry) bool { return p.ref == ref })
	if at < 0 {
		return proposalEntry{}, false
	}
	return received[at], true
}

// checkOne judges a proposal by itself, against the current epoch.
func (c *proposalChecker) checkOne(e proposalEntry) error {
	p := e.proposal
	switch p.Type {
	case ProposalAdd:
		return c.checkAdd(p.Add)
	case ProposalUpdate:
		return c.checkUpdate(e.sender.Leaf, p.Update)
	case ProposalRemove:
		if c.state.tree.leaf(p.Remove) == nil {
			return fmt.Errorf("%w: remove: %w", ErrInvalidProposal, ErrNoSuchMember)
		}
	case ProposalPSK:
		if p.PSK.Type == PSKResumption && p.PSK.Usage != ResumptionApplication {
			return fmt.Errorf("%w: resumption PSK usage %d", ErrInvalidProposal, p.PSK.Usage)
		}
		return checkPSKIDs([]*PreSharedKeyID{p.PSK})
	case ProposalReInit:
		if p.ReInit.Version < c.state.context.Version {
			return fmt.Errorf("%w: reinit to an older version", ErrInvalidProposal)
		}
	case ProposalGroupContextExtensions:
		return c.checkExtensions(p.GroupContextExtensions)
	}
	return nil
}

func (c *proposalChecker) checkAdd(kp *KeyPackage) error {
	if err := kp.Verify(c.at, c.validator); err != nil {
		return fmt.Errorf("%w: add: %w", ErrInvalidProposal, err)
	}
	return nil
}

func (c *proposalChecker) checkUpdate(sender LeafIndex, l *LeafNode) error {
	if l.Source != LeafFromUpdate {
		return fmt.Errorf("%w: update: leaf source", ErrInvalidProposal)
	}
	if err := c.checkReplacement(sender, l); err != nil {
		return fmt.Errorf("%w: update: %w", ErrInvalidProposal, err)
	}
	return nil
}

// checkReplacement judges a leaf that is to stand where the sender's stands.
func (c *proposalChecker) checkReplacement(sender LeafIndex, l *LeafNode) error {
	old := c.state.tree.leaf(sender)
	if old == nil {
		return ErrNoSuchMember
	}
	if string(old.EncryptionKey) == string(l.EncryptionKey) {
		return fmt.Errorf("%w: encryption key did not change", ErrKeyReuse)
	}
	if err := l.validate(c.state.context.GroupID, sender, c.validator); err != nil {
		return err
	}
	return validateSuccession(c.validator, old, l)
}

// checkExtensions judges a new list of group extensions; whether every member
// supports it is judged after all proposals are applied.
func (c *proposalChecker) checkExtensions(x Extensions) error {
	if _, err := x.requiredCapabilities(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidProposal, err)
	}
	if err := x.validateExternalSenders(c.validator); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidProposal, err)
	}
	return nil
}

// checkList judges the proposals of a Commit by a member together.
func (c *proposalChecker) checkList(entries []proposalEntry, committer LeafIndex) error {
	changed := map[LeafIndex]bool{}
	counts := map[ProposalType]int{}
	for _, e := range entries {
		counts[e.proposal.Type]++
		if err := c.checkOne(e); err != nil {
			return err
		}
		target, changes := e.target()
		if !changes {
			continue
		}
		if target == committer {
			return fmt.Errorf("%w: the committer's own leaf", ErrInvalidProposal)
		}
		if changed[target] {
			return fmt.Errorf("%w: leaf %d changed twice", ErrInvalidProposal, target)
		}
		changed[target] = true
	}
	return checkCounts(counts, len(entries))
}

// target returns the leaf that an Update or Remove changes.
func (e proposalEntry) target() (LeafIndex, bool) {
	switch e.proposal.Type {
	case ProposalUpdate:
		return e.sender.Leaf, true
	case ProposalRemove:
		return e.proposal.Remove, true
	}
	return 0, false
}

func checkCounts(counts map[ProposalType]int, total int) error {
	switch {
	case counts[ProposalGroupContextExtensions] > 1:
		return fmt.Errorf("%w: group context extensions given twice", ErrInvalidProposal)
	case counts[ProposalReInit] > 0 && total > 1:
		return fmt.Errorf("%w: reinit together with another proposal", ErrInvalidProposal)
	case counts[ProposalExternalInit] > 0:
		return fmt.Errorf("%w: external init by a member", ErrInvalidProposal)
	}
	return nil
}

// checkExternal judges the proposals of an external Commit (RFC 9420 §12.2,
// §12.4.3.2): one ExternalInit, at most one Remove, which must be of the joiner's
// own earlier leaf, and pre-shared keys, all by value.
func (c *proposalChecker) checkExternal(entries []proposalEntry, joiner *LeafNode) error {
	counts := map[ProposalType]int{}
	for _, e := range entries {
		counts[e.proposal.Type]++
		if e.byRef {
			return fmt.Errorf("%w: reference in an external commit", ErrInvalidProposal)
		}
		switch e.proposal.Type {
		case ProposalExternalInit, ProposalRemove, ProposalPSK:
		default:
			return fmt.Errorf("%w: type %d in an external commit", ErrInvalidProposal, e.proposal.Type)
		}
		if err := c.checkOne(e); err != nil {
			return err
		}
		if e.proposal.Type == ProposalRemove {
			old := c.state.tree.leaf(e.proposal.Remove)
			if bytes.Equal(old.EncryptionKey, joiner.EncryptionKey) {
				return fmt.Errorf("%w: resync: %w: encryption key did not change", ErrInvalidProposal, ErrKeyReuse)
			}
			if err := validateSuccession(c.validator, old, joiner); err != nil {
				return fmt.Errorf("%w: external commit removes another member: %w", ErrInvalidProposal, err)
			}
		}
	}
	if counts[ProposalExternalInit] != 1 || counts[ProposalRemove] > 1 {
		return fmt.Errorf("%w: proposals of an external commit", ErrInvalidProposal)
	}
	return nil
}

// needsPath reports whether a Commit with these proposals must have a path (RFC
// 9420 §12.4, §17.4).
func needsPath(entries []proposalEntry) bool {
	for _, e := range entries {
		switch e.proposal.Type {
		case ProposalUpdate, ProposalRemove, ProposalExternalInit, ProposalGroupContextExtensions:
			return true
		}
	}
	return len(entries) == 0
}

// externalSender is one entry of the external_senders extension (RFC 9420 §12.1.8.1).
type externalSender struct {
	signatureKey []byte
	credential   Credential
}

func (x Extensions) externalSenders() (senders []externalSender, err error) {
	data, ok := x.Find(ExtensionExternalSenders)
	if !ok {
		return nil, nil
	}
	err = decode(data, "external_senders", func(r *reader) {
		senders = list(r, func(r *reader) externalSender {
			return externalSender{signatureKey: r.opaque(), credential: decodeCredential(r)}
		})
	})
	return senders, err
}

// validateExternalSenders asks the hook about each sender whom the extension lets in
// (RFC 9420 §5.3.1). A nil hook accepts everyone.
func (x Extensions) validateExternalSenders(v CredentialValidator) error {
	senders, err := x.externalSenders()
	if err != nil {
		return err
	}
	for _, s := range senders {
		if len(s.signatureKey) != ed25519.PublicKeySize {
			return fmt.Errorf("%w: signature key of an external sender", ErrMalformed)
		}
		if v == nil {
			continue
		}
		judge, ok := v.(ExternalSenderValidator)
		if !ok {
			return fmt.Errorf("%w: the validator knows no external senders", ErrCredential)
		}
		if err := judge.ValidateExternalSender(s.credential, s.signatureKey); err != nil {
			return fmt.Errorf("%w: external sender: %w", ErrCredential, err)
		}
	}
	return nil
}
