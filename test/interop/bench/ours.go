package main

import (
	"crypto/ed25519"
	"time"

	"quicproquo.dev/mls"
)

type ours struct{}

func (ours) name() string { return "ours" }
func (ours) close() error { return nil }

type ourClient struct {
	signer ed25519.PrivateKey
	bundle *mls.KeyPackageBundle
}

func newOurClient(name string) (*ourClient, error) {
	_, signer, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	b, err := mls.NewKeyPackage(mls.KeyPackageOptions{
		Credential: mls.BasicCredential([]byte(name)), Signer: signer,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
	})
	return &ourClient{signer: signer, bundle: b}, err
}

// ourGroup is the creator's state and another member's, as saved and alive.
type ourGroup struct {
	creator, member           *ourClient
	creatorState, memberState []byte
	sender, receiver          *mls.Group
	talker                    *mls.Group // for encrypt alone: nobody listens
	welcome, newcomer         []byte
	adds                      map[bool][]byte // a Commit that adds, by whether it has a path
	message                   []byte
	g                         *mls.Group
	guest                     *ourClient
	full, unmerged            []byte // Welcomes for the guest
	tasks
}

func (ours) build(n int) (group, error) {
	x := &ourGroup{adds: map[bool][]byte{}}
	all, err := people("member", n+1, newOurClient)
	if err != nil {
		return nil, err
	}
	x.creator, x.member = all[0], all[1]
	if x.newcomer, err = all[n].bundle.KeyPackage().MarshalMessage(); err != nil {
		return nil, err
	}
	if err := x.found(keyPackagesOf(all[1:n])); err != nil {
		return nil, err
	}
	x.tasks = x.all()
	return x, nil
}

func (x *ourGroup) found(kps []*mls.KeyPackage) error {
	g, err := mls.CreateGroup(mls.GroupOptions{
		GroupID: []byte("group"), Credential: mls.BasicCredential([]byte("member-0")), Signer: x.creator.signer,
	})
	if err != nil {
		return err
	}
	x.sender = g
	// With a path although it needs none: that is more work for us.
	p, err := g.Commit(mls.CommitOptions{Adds: kps, ForcePath: true})
	if err != nil {
		return err
	}
	if err := g.Merge(p); err != nil {
		return err
	}
	x.welcome = p.Welcome
	if x.receiver, err = join(p.Welcome, x.member); err != nil {
		return err
	}
	update, err := x.commit(g, mls.CommitOptions{})
	if err != nil {
		return err
	}
	if err := process(x.receiver, update); err != nil {
		return err
	}
	return x.save()
}

func (x *ourGroup) save() error {
	var err error
	if x.creatorState, err = x.sender.MarshalBinary(); err != nil {
		return err
	}
	if x.memberState, err = x.receiver.MarshalBinary(); err != nil {
		return err
	}
	if err := x.load(x.creator, x.creatorState); err != nil {
		return err
	}
	x.talker = x.g
	for _, path := range []bool{false, true} {
		if err := x.load(x.creator, x.creatorState); err != nil {
			return err
		}
		if x.adds[path], err = x.add(path); err != nil {
			return err
		}
	}
	return nil
}

func (x *ourGroup) load(c *ourClient, state []byte) error {
	g, err := mls.UnmarshalGroup(state, c.signer, nil)
	x.g = g
	return err
}

func (x *ourGroup) invite(to *foreign) error {
	var err error
	if x.guest, err = newOurClient("guest"); err != nil {
		return err
	}
	kp, err := x.guest.bundle.KeyPackage().MarshalMessage()
	if err != nil {
		return err
	}
	x.full, x.unmerged, err = to.welcomes(kp)
	return err
}

func join(welcome []byte, as *ourClient) (*mls.Group, error) {
	m, err := mls.ParseMessage(welcome)
	if err != nil {
		return nil, err
	}
	return mls.JoinGroup(m.Welcome, as.bundle, as.signer, mls.JoinOptions{})
}

func (x *ourGroup) commit(g *mls.Group, o mls.CommitOptions) ([]byte, error) {
	p, err := g.Commit(o)
	if err != nil {
		return nil, err
	}
	return p.Commit, g.Merge(p)
}

func (x *ourGroup) add(path bool) ([]byte, error) {
	m, err := mls.ParseMessage(x.newcomer)
	if err != nil {
		return nil, err
	}
	return x.commit(x.g, mls.CommitOptions{Adds: []*mls.KeyPackage{m.KeyPackage}, ForcePath: path})
}

func process(g *mls.Group, message []byte) error {
	m, err := mls.ParseMessage(message)
	if err != nil {
		return err
	}
	_, err = g.Process(m, time.Now())
	return err
}

func (x *ourGroup) all() tasks {
	creator := func() error { return x.load(x.creator, x.creatorState) }
	member := func() error { return x.load(x.member, x.memberState) }
	add := func(path bool) task {
		return task{creator, func() error { _, err := x.add(path); return err }}
	}
	text := make([]byte, textSize)
	talk := func() error { _, err := x.talker.Encrypt(text, nil, 0); return err }
	send := func() (err error) {
		x.message, err = x.sender.Encrypt(text, nil, 0)
		return err
	}
	return tasks{
		opAdd: add(false), opAddPath: add(true),
		opJoin:         {nil, func() error { _, err := join(x.welcome, x.member); return err }},
		opJoinFull:     {nil, func() error { _, err := join(x.full, x.guest); return err }},
		opJoinUnmerged: {nil, func() error { _, err := join(x.unmerged, x.guest); return err }},
		opProcess:      {member, func() error { return process(x.g, x.adds[false]) }},
		opProcessPath:  {member, func() error { return process(x.g, x.adds[true]) }},
		opUpdate:       {creator, func() error { _, err := x.commit(x.g, mls.CommitOptions{}); return err }},
		opEncrypt:      {nil, talk},
		opDecrypt:      {send, func() error { return process(x.receiver, x.message) }},
	}
}
