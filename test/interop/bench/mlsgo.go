package main

import (
	"errors"

	"github.com/thomas-vilte/mls-go/ciphersuite"
	"github.com/thomas-vilte/mls-go/credentials"
	"github.com/thomas-vilte/mls-go/framing"
	theirs "github.com/thomas-vilte/mls-go/group"
	"github.com/thomas-vilte/mls-go/keypackages"

	adapter "quicproquo.dev/test/interop/mlsgo"
)

const suite = ciphersuite.MLS128DHKEMX25519

type mlsGo struct{}

func (mlsGo) name() string { return adapter.Name }
func (mlsGo) close() error { return nil }

type theirClient struct {
	signer     *ciphersuite.SignaturePrivateKey
	keyPackage *keypackages.KeyPackage
	private    *keypackages.KeyPackagePrivateKeys
}

func newTheirClient(name string) (*theirClient, error) {
	cred, signer, err := credentials.GenerateCredentialWithKeyForCS([]byte(name), suite)
	if err != nil {
		return nil, err
	}
	kp, private, err := keypackages.Generate(cred, suite)
	return &theirClient{signer: signer, keyPackage: kp, private: private}, err
}

// message is the KeyPackage as an MLSMessage.
func (c *theirClient) message() []byte {
	return (&framing.MLSMessage{KeyPackage: c.keyPackage.Marshal()}).Marshal()
}

// theirGroup is like ourGroup.
type theirGroup struct {
	creator, member           *theirClient
	creatorState, memberState []byte
	sender, receiver, talker  *theirs.Group
	welcome, newcomer         []byte
	added, message            []byte
	g                         *theirs.Group
	guest                     *theirClient
	full, unmerged            []byte // Welcomes for the guest
	tasks
}

func (mlsGo) build(n int) (group, error) {
	x := &theirGroup{}
	all, err := people("member", n+1, newTheirClient)
	if err != nil {
		return nil, err
	}
	x.creator, x.member = all[0], all[1]
	x.newcomer = all[n].message()
	if err := x.found(all[1:n]); err != nil {
		return nil, err
	}
	x.tasks = x.all()
	return x, nil
}

func (x *theirGroup) found(others []*theirClient) error {
	g, err := theirs.NewGroup(theirs.NewGroupID([]byte("group")), suite, x.creator.keyPackage, x.creator.private)
	if err != nil {
		return err
	}
	x.sender = g
	for _, c := range others {
		if _, err := g.AddMember(c.keyPackage); err != nil {
			return err
		}
	}
	// A creator who is alone commits without a path.
	if _, x.welcome, err = x.commit(g); err != nil {
		return err
	}
	if x.receiver, err = joinTheirs(x.welcome, x.member); err != nil {
		return err
	}
	update, _, err := x.commit(g)
	if err != nil {
		return err
	}
	if err := processTheirs(x.receiver, update); err != nil {
		return err
	}
	return x.save()
}

func (x *theirGroup) save() error {
	var err error
	if x.creatorState, err = x.sender.MarshalState(); err != nil {
		return err
	}
	if x.memberState, err = x.receiver.MarshalState(); err != nil {
		return err
	}
	if err := x.load(x.creatorState); err != nil {
		return err
	}
	x.talker = x.g
	if err := x.load(x.creatorState); err != nil {
		return err
	}
	x.added, err = x.add()
	return err
}

func (x *theirGroup) load(state []byte) error {
	g, err := theirs.UnmarshalGroupState(state)
	x.g = g
	return err
}

func (x *theirGroup) invite(to *foreign) error {
	var err error
	if x.guest, err = newTheirClient("guest"); err != nil {
		return err
	}
	x.full, x.unmerged, err = to.welcomes(x.guest.message())
	return err
}

func joinTheirs(welcome []byte, as *theirClient) (*theirs.Group, error) {
	m, err := framing.UnmarshalMLSMessage(welcome)
	if err != nil {
		return nil, err
	}
	w, err := theirs.UnmarshalWelcome(m.Welcome)
	if err != nil {
		return nil, err
	}
	return theirs.JoinFromWelcome(w, as.keyPackage, as.private, nil)
}

// commit commits what is proposed, with a path when there is anyone else, applies
// that and makes the Welcome.
func (x *theirGroup) commit(g *theirs.Group) (commit, welcome []byte, err error) {
	staged, err := g.Commit(x.creator.signer, x.creator.signer.PublicKey(), nil)
	if err != nil {
		return nil, nil, err
	}
	content := staged.AuthenticatedContent()
	commit = framing.NewMLSMessagePublic(&framing.PublicMessage{
		Content: content.Content, Auth: content.Auth, MembershipTag: staged.MembershipTag(),
	}).Marshal()
	joinerSecret := staged.JoinerSecret()
	if err := g.MergeCommit(staged); err != nil {
		return nil, nil, err
	}
	var added []*keypackages.KeyPackage
	for _, p := range staged.Proposals() {
		added = append(added, p.Add.KeyPackage)
	}
	if added == nil {
		return commit, nil, nil
	}
	w, err := g.CreateWelcomeWithOpts(added, x.creator.signer,
		theirs.WithJoinerSecret(joinerSecret), theirs.WithPSKIDs(staged.PskIDs()),
		theirs.WithPSKSecret(staged.RawPskSecret()), theirs.WithStagedCommit(staged))
	if err != nil {
		return nil, nil, err
	}
	return commit, (&framing.MLSMessage{Welcome: w.Marshal()}).Marshal(), nil
}

func (x *theirGroup) add() ([]byte, error) {
	m, err := framing.UnmarshalMLSMessage(x.newcomer)
	if err != nil {
		return nil, err
	}
	kp, err := keypackages.UnmarshalKeyPackage(m.KeyPackage)
	if err != nil {
		return nil, err
	}
	if _, err := x.g.AddMember(kp); err != nil {
		return nil, err
	}
	commit, _, err := x.commit(x.g)
	return commit, err
}

func processTheirs(g *theirs.Group, message []byte) error {
	m, err := framing.UnmarshalMLSMessage(message)
	if err != nil {
		return err
	}
	if public, ok := m.AsPublic(); ok {
		return g.ProcessPublicMessage(public)
	}
	private, ok := m.AsPrivate()
	if !ok {
		return errors.New("neither PublicMessage nor PrivateMessage")
	}
	_, _, _, err = g.ReceiveApplicationMessage(private) //nolint:dogsled // Only whether it decrypts.
	return err
}

func (x *theirGroup) all() tasks {
	creator := func() error { return x.load(x.creatorState) }
	member := func() error { return x.load(x.memberState) }
	add := task{creator, func() error { _, err := x.add(); return err }}
	added := task{member, func() error { return processTheirs(x.g, x.added) }}
	text := make([]byte, textSize)
	encrypt := func(from *theirs.Group) error {
		m, err := from.SendMessage(text, x.creator.signer)
		if err != nil {
			return err
		}
		x.message = framing.NewMLSMessagePrivate(m).Marshal()
		return nil
	}
	return tasks{
		opAdd: add, opAddPath: add, // always with a path
		opJoin:         {nil, func() error { _, err := joinTheirs(x.welcome, x.member); return err }},
		opJoinFull:     {nil, func() error { _, err := joinTheirs(x.full, x.guest); return err }},
		opJoinUnmerged: {nil, func() error { _, err := joinTheirs(x.unmerged, x.guest); return err }},
		opProcess:      added, opProcessPath: added,
		opUpdate:  {creator, func() error { _, _, err := x.commit(x.g); return err }},
		opEncrypt: {nil, func() error { return encrypt(x.talker) }},
		opDecrypt: {
			func() error { return encrypt(x.sender) },
			func() error { return processTheirs(x.receiver, x.message) },
		},
	}
}
