// Package mlsgo lets github.com/thomas-vilte/mls-go take part in the interop
// scenarios, by its package group, which offers more than its Client.
package mlsgo

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"github.com/thomas-vilte/mls-go/ciphersuite"
	"github.com/thomas-vilte/mls-go/credentials"
	"github.com/thomas-vilte/mls-go/extensions"
	"github.com/thomas-vilte/mls-go/framing"
	"github.com/thomas-vilte/mls-go/group"
	"github.com/thomas-vilte/mls-go/keypackages"

	"quicproquo.dev/test/interop"
)

// Name is what the engine is called.
const Name = "mls-go"

const suite = ciphersuite.MLS128DHKEMX25519

// Engine makes members that are played by mls-go.
type Engine struct{}

// Name implements interop.Engine.
func (Engine) Name() string { return Name }

// NewMember implements interop.Engine.
func (Engine) NewMember(id string) (interop.Member, error) {
	cred, signer, err := credentials.GenerateCredentialWithKeyForCS([]byte(id), suite)
	if err != nil {
		return nil, err
	}
	return &member{credential: cred, signer: signer, psks: map[string][]byte{}}, nil
}

type member struct {
	credential *credentials.CredentialWithKey
	signer     *ciphersuite.SignaturePrivateKey
	keyPackage *keypackages.KeyPackage
	private    *keypackages.KeyPackagePrivateKeys
	psks       map[string][]byte
	group      *group.Group
}

func (m *member) AddPSK(id, secret []byte) error {
	m.psks[string(id)] = secret
	if m.group != nil {
		m.group.LoadPsk(id, secret)
	}
	return nil
}

func (m *member) KeyPackage() ([]byte, error) {
	kp, private, err := keypackages.Generate(m.credential, suite)
	if err != nil {
		return nil, err
	}
	m.keyPackage, m.private = kp, private
	return (&framing.MLSMessage{KeyPackage: kp.Marshal()}).Marshal(), nil
}

func (m *member) Create(groupID []byte) error {
	g, err := group.NewGroup(group.NewGroupID(groupID), suite, m.keyPackage, m.private)
	m.group = g
	return err
}

func (m *member) Join(welcome, tree []byte) error {
	if tree != nil {
		return interop.Cannot(Name, "JoinFromWelcome takes no tree; without one in the Welcome it joins unverified, as the only member")
	}
	msg, err := framing.UnmarshalMLSMessage(welcome)
	if err != nil {
		return err
	}
	w, err := group.UnmarshalWelcome(msg.Welcome)
	if err != nil {
		return err
	}
	g, err := group.JoinFromWelcome(w, m.keyPackage, m.private, m.psks)
	m.group = g
	return err
}

func (m *member) JoinExternal(groupInfo []byte, o interop.ExternalOptions) ([]byte, error) {
	if o.Tree != nil {
		return nil, interop.Cannot(Name, "ExternalCommit takes no tree apart from the GroupInfo's decoded one")
	}
	msg, err := framing.UnmarshalMLSMessage(groupInfo)
	if err != nil {
		return nil, err
	}
	gi, err := group.UnmarshalGroupInfo(msg.GroupInfo)
	if err != nil {
		return nil, err
	}
	var prior *group.LeafNodeIndex
	if o.Resync != nil {
		at := group.NewLeafNodeIndex(*o.Resync)
		prior = &at
	}
	g, staged, err := group.ExternalCommit(gi, suite, m.signer, m.signer.PublicKey(), prior, m.credential.Credential)
	if err != nil {
		return nil, err
	}
	m.group = g
	content := staged.AuthenticatedContent()
	return framing.NewMLSMessagePublic(&framing.PublicMessage{Content: content.Content, Auth: content.Auth}).Marshal(), nil
}

func (m *member) ProposeJoin([]byte) ([]byte, error) {
	return nil, interop.Cannot(Name, "its API makes no proposals of newcomers")
}

func (m *member) Commit(c interop.Commit) (interop.Committed, error) {
	if err := m.addProposals(c); err != nil {
		return interop.Committed{}, err
	}
	format := framing.WireFormatPublicMessage
	if c.Private {
		format = framing.WireFormatPrivateMessage
	}
	staged, err := m.group.CommitWithFormat(m.signer, m.signer.PublicKey(), nil, format)
	if err != nil {
		return interop.Committed{}, err
	}
	message, err := m.frame(staged, c.Private)
	if err != nil {
		return interop.Committed{}, err
	}
	joinerSecret := staged.JoinerSecret() // gone after the merge
	if err := m.group.MergeCommit(staged); err != nil {
		return interop.Committed{}, err
	}
	welcome, err := m.welcome(staged, joinerSecret, !c.NoTree)
	return interop.Committed{Commit: message, Welcome: welcome}, err
}

func (m *member) addProposals(c interop.Commit) error {
	for _, add := range c.Adds {
		if _, err := m.proposal(interop.Proposal{Add: add}); err != nil {
			return err
		}
	}
	for _, r := range c.Removes {
		if _, err := m.proposal(interop.Proposal{Remove: &r}); err != nil {
			return err
		}
	}
	for _, id := range c.PSKs {
		if _, err := m.proposal(interop.Proposal{PSK: id}); err != nil {
			return err
		}
	}
	if c.ResumptionPSK != nil {
		p := group.NewResumptionPSKProposal(m.group.ID().AsSlice(), *c.ResumptionPSK, nonce())
		m.group.Proposals().AddProposal(p, m.group.OwnLeafIndex())
	}
	if c.Extensions != nil {
		if _, err := m.proposal(interop.Proposal{Extensions: c.Extensions}); err != nil {
			return err
		}
	}
	if c.ReInit != nil {
		_, err := m.proposal(interop.Proposal{ReInit: c.ReInit})
		return err
	}
	return nil
}

func nonce() []byte {
	b := make([]byte, suite.HashLength())
	_, _ = rand.Read(b) // never fails
	return b
}

// proposal makes a proposal and stores it for this member's next Commit.
func (m *member) proposal(p interop.Proposal) (*group.Proposal, error) {
	store := func(p *group.Proposal) (*group.Proposal, error) {
		m.group.Proposals().AddProposal(p, m.group.OwnLeafIndex())
		return p, nil
	}
	switch {
	case p.Add != nil:
		msg, err := framing.UnmarshalMLSMessage(p.Add)
		if err != nil {
			return nil, err
		}
		kp, err := keypackages.UnmarshalKeyPackage(msg.KeyPackage)
		if err != nil {
			return nil, err
		}
		return m.group.AddMember(kp)
	case p.Update:
		return m.group.SelfUpdate(m.signer)
	case p.Remove != nil:
		return m.group.RemoveMember(group.NewLeafNodeIndex(*p.Remove))
	case p.PSK != nil:
		made := group.NewPreSharedKeyProposal(1, p.PSK)
		made.PreSharedKey.PskID.Nonce = nonce()
		return store(made)
	case p.Extensions != nil:
		var exts []group.Extension
		for _, e := range p.Extensions {
			exts = append(exts, group.Extension{Type: extensions.ExtensionType(e.Type), Data: e.Data})
		}
		return store(group.NewGroupContextExtensionsProposal(exts))
	case p.ReInit != nil:
		return store(group.NewReInitProposal(p.ReInit, keypackages.MLS10, suite, nil))
	}
	return nil, errors.New("no proposal")
}

// frame makes the message of a staged Commit.
func (m *member) frame(staged *group.StagedCommit, private bool) ([]byte, error) {
	content := staged.AuthenticatedContent()
	if !private {
		return framing.NewMLSMessagePublic(&framing.PublicMessage{
			Content: content.Content, Auth: content.Auth, MembershipTag: staged.MembershipTag(),
		}).Marshal(), nil
	}
	return m.seal(content)
}

func (m *member) seal(content *framing.AuthenticatedContent) ([]byte, error) {
	pm, err := framing.Encrypt(framing.EncryptParams{
		AuthContent: content, SenderLeafIndex: uint32(m.group.OwnLeafIndex()), CipherSuite: suite,
		SenderDataSecret: m.group.EpochSecrets().SenderDataSecret, SecretTree: m.group.SecretTree(),
		GroupContext: m.group.GroupContext().Marshal(),
	})
	if err != nil {
		return nil, err
	}
	return framing.NewMLSMessagePrivate(pm).Marshal(), nil
}

func (m *member) welcome(staged *group.StagedCommit, joinerSecret *ciphersuite.Secret, tree bool) ([]byte, error) {
	var added []*keypackages.KeyPackage
	for _, p := range staged.Proposals() {
		if p.Type == group.ProposalTypeAdd {
			added = append(added, p.Add.KeyPackage)
		}
	}
	if added == nil {
		return nil, nil
	}
	w, err := m.group.CreateWelcomeWithOpts(added, m.signer,
		group.WithJoinerSecret(joinerSecret), group.WithPSKIDs(staged.PskIDs()),
		group.WithPSKSecret(staged.RawPskSecret()), group.WithStagedCommit(staged),
		group.WithGroupInfoOptions(group.WithRatchetTree(tree)))
	if err != nil {
		return nil, err
	}
	return (&framing.MLSMessage{Welcome: w.Marshal()}).Marshal(), nil
}

func (m *member) Propose(p interop.Proposal) ([]byte, error) {
	made, err := m.proposal(p)
	if err != nil {
		return nil, err
	}
	if !p.Private {
		return m.group.SignProposalAsPublicMessage(made, m.signer)
	}
	return m.proposePrivately(made)
}

// proposePrivately signs and seals by the framing package, for the group package
// only makes public proposals.
func (m *member) proposePrivately(p *group.Proposal) ([]byte, error) {
	content := &framing.AuthenticatedContent{
		WireFormat: framing.WireFormatPrivateMessage,
		Content: framing.FramedContent{
			GroupID: m.group.ID().AsSlice(), Epoch: m.group.Epoch().AsUint64(),
			Sender: framing.Sender{Type: framing.SenderTypeMember, LeafIndex: uint32(m.group.OwnLeafIndex())},
			Body:   framing.ProposalBody{Data: group.ProposalMarshal(p)},
		},
		GroupContext: m.group.GroupContext().Marshal(),
	}
	sig, err := ciphersuite.SignWithLabel(m.signer, "FramedContentTBS", content.MarshalTBS())
	if err != nil {
		return nil, err
	}
	content.Auth.Signature = sig
	m.group.RegisterProposalRef(p, group.ComputeProposalRef(content.Marshal(), suite))
	return m.seal(content)
}

func (m *member) Process(message []byte) ([]byte, error) {
	msg, err := framing.UnmarshalMLSMessage(message)
	if err != nil {
		return nil, err
	}
	if public, ok := msg.AsPublic(); ok {
		return nil, m.group.ProcessPublicMessage(public)
	}
	private, ok := msg.AsPrivate()
	if !ok {
		return nil, errors.New("neither PublicMessage nor PrivateMessage")
	}
	if private.ContentType != framing.ContentTypeApplication {
		return nil, m.group.ProcessPrivateMessage(private)
	}
	text, _, _, err := m.group.ReceiveApplicationMessage(private)
	return text, err
}

func (m *member) Encrypt(text []byte, padding int) ([]byte, error) {
	m.group.SetPaddingSize(padding)
	pm, err := m.group.SendMessage(text, m.signer)
	if err != nil {
		return nil, err
	}
	return framing.NewMLSMessagePrivate(pm).Marshal(), nil
}

func (m *member) GroupInfo(o interop.GroupInfoOptions) ([]byte, error) {
	gi, err := m.group.GetGroupInfoWithOptions(m.signer, group.WithRatchetTree(!o.NoTree))
	if err != nil {
		return nil, err
	}
	return (&framing.MLSMessage{GroupInfo: gi.Marshal()}).Marshal(), nil
}

func (m *member) Tree() ([]byte, error) { return m.group.MarshalRatchetTreeRFC(), nil }

func (m *member) State() (interop.State, error) {
	s := interop.State{
		Epoch: m.group.Epoch().AsUint64(), Authenticator: m.group.EpochAuthenticator(),
		Active: m.group.State() == group.StateOperational,
	}
	for _, l := range m.group.GetMembers() {
		s.Members = append(s.Members, interop.Leaf{Index: uint32(l.LeafIndex), Identity: string(l.Credential.Identity)})
	}
	slices.SortFunc(s.Members, func(a, b interop.Leaf) int { return int(a.Index) - int(b.Index) })
	if !s.Active {
		return s, nil // it exports no more
	}
	exported, err := m.group.Export(interop.ExportLabel, []byte(interop.ExportContext), interop.ExportLength)
	s.Exported = exported
	if err != nil {
		return s, fmt.Errorf("export: %w", err)
	}
	return s, nil
}
