// Package ours lets the project's own MLS engine take part in the interop scenarios.
package ours

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"quicproquo.dev/mls"
	"quicproquo.dev/test/interop"
)

const name = "ours"

// Engine makes members that are played by package mls.
type Engine struct{}

// Name implements interop.Engine.
func (Engine) Name() string { return name }

// NewMember implements interop.Engine.
func (Engine) NewMember(id string) (interop.Member, error) {
	_, signer, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	return &member{
		credential: mls.BasicCredential([]byte(id)), signer: signer, psks: pskStore{},
	}, nil
}

type member struct {
	credential mls.Credential
	signer     ed25519.PrivateKey
	bundle     *mls.KeyPackageBundle
	psks       pskStore
	group      *mls.Group
}

// pskStore holds external pre-shared keys by id.
type pskStore map[string][]byte

func (s pskStore) PSK(id *mls.PreSharedKeyID) ([]byte, error) {
	if secret, ok := s[string(id.ID)]; ok && id.Type == mls.PSKExternal {
		return secret, nil
	}
	return nil, fmt.Errorf("%w: %q", mls.ErrUnknownPSK, id.ID)
}

func (m *member) AddPSK(id, secret []byte) error {
	m.psks[string(id)] = secret
	return nil
}

func (m *member) KeyPackage() ([]byte, error) {
	now := time.Now()
	bundle, err := mls.NewKeyPackage(mls.KeyPackageOptions{
		Credential: m.credential, Signer: m.signer,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
	})
	if err != nil {
		return nil, err
	}
	m.bundle = bundle
	return bundle.KeyPackage().MarshalMessage()
}

func (m *member) Create(groupID []byte) error {
	g, err := mls.CreateGroup(mls.GroupOptions{GroupID: groupID, Credential: m.credential, Signer: m.signer, PSKs: m.psks})
	m.group = g
	return err
}

func (m *member) Join(welcome, tree []byte) error {
	w, err := mls.ParseMessage(welcome)
	if err != nil {
		return err
	}
	g, err := mls.JoinGroup(w.Welcome, m.bundle, m.signer, mls.JoinOptions{RatchetTree: tree, PSKs: m.psks})
	m.group = g
	return err
}

func (m *member) JoinExternal(groupInfo []byte, o interop.ExternalOptions) ([]byte, error) {
	gi, err := mls.ParseMessage(groupInfo)
	if err != nil {
		return nil, err
	}
	opts := mls.ExternalJoinOptions{Credential: m.credential, Signer: m.signer, RatchetTree: o.Tree, PSKs: m.psks}
	if o.Resync != nil {
		at := mls.LeafIndex(*o.Resync)
		opts.Resync = &at
	}
	j, err := mls.JoinExternal(gi.GroupInfo, opts)
	if err != nil {
		return nil, err
	}
	m.group = j.Group
	return j.Commit, nil
}

func (m *member) ProposeJoin([]byte) ([]byte, error) {
	return nil, interop.Cannot(name, "a newcomer joins by an external Commit; it does not propose itself")
}

func (m *member) Commit(c interop.Commit) (interop.Committed, error) {
	opts, err := m.commitOptions(c)
	if err != nil {
		return interop.Committed{}, err
	}
	p, err := m.group.Commit(opts)
	if err != nil {
		return interop.Committed{}, err
	}
	return interop.Committed{Commit: p.Commit, Welcome: p.Welcome}, m.group.Merge(p)
}

func (m *member) commitOptions(c interop.Commit) (mls.CommitOptions, error) {
	opts := mls.CommitOptions{
		ForcePath: c.Path, TreeOutOfBand: c.NoTree, GroupContextExtensions: extensions(c.Extensions), ReInit: reInit(c.ReInit),
	}
	if c.Private {
		return opts, errNoPrivate()
	}
	for _, add := range c.Adds {
		kp, err := keyPackage(add)
		if err != nil {
			return opts, err
		}
		opts.Adds = append(opts.Adds, kp)
	}
	for _, r := range c.Removes {
		opts.Removes = append(opts.Removes, mls.LeafIndex(r))
	}
	for _, id := range c.PSKs {
		opts.PSKs = append(opts.PSKs, externalPSK(id))
	}
	if c.ResumptionPSK != nil {
		opts.PSKs = append(opts.PSKs, &mls.PreSharedKeyID{
			Type: mls.PSKResumption, Usage: mls.ResumptionApplication, GroupID: m.group.GroupID(), Epoch: *c.ResumptionPSK,
		})
	}
	return opts, nil
}

func errNoPrivate() error {
	return interop.Cannot(name, "handshake messages are sent as PublicMessage, so that the delivery service can check them")
}

// keyPackage parses and verifies a KeyPackage, as who is about to add it must.
func keyPackage(message []byte) (*mls.KeyPackage, error) {
	parsed, err := mls.ParseMessage(message)
	if err != nil {
		return nil, err
	}
	return parsed.KeyPackage, parsed.KeyPackage.Verify(time.Now(), nil)
}

func externalPSK(id []byte) *mls.PreSharedKeyID {
	return &mls.PreSharedKeyID{Type: mls.PSKExternal, ID: id}
}

func extensions(in []interop.Extension) *mls.Extensions {
	if in == nil {
		return nil
	}
	out := mls.Extensions{}
	for _, e := range in {
		out = append(out, mls.Extension{Type: mls.ExtensionType(e.Type), Data: e.Data})
	}
	return &out
}

func reInit(groupID []byte) *mls.ReInit {
	if groupID == nil {
		return nil
	}
	return &mls.ReInit{GroupID: groupID, Version: 1, CipherSuite: mls.SuiteX25519AES128GCMSHA256Ed25519}
}

func (m *member) Propose(p interop.Proposal) ([]byte, error) {
	opts := mls.ProposeOptions{Update: p.Update, GroupContextExtensions: extensions(p.Extensions), ReInit: reInit(p.ReInit)}
	if p.Private {
		return nil, errNoPrivate()
	}
	if p.Add != nil {
		kp, err := keyPackage(p.Add)
		if err != nil {
			return nil, err
		}
		opts.Add = kp
	}
	if p.Remove != nil {
		at := mls.LeafIndex(*p.Remove)
		opts.Remove = &at
	}
	if p.PSK != nil {
		opts.PSK = externalPSK(p.PSK)
	}
	return m.group.Propose(opts)
}

func (m *member) Process(message []byte) ([]byte, error) {
	parsed, err := mls.ParseMessage(message)
	if err != nil {
		return nil, err
	}
	p, err := m.group.Process(parsed, time.Now())
	if err != nil {
		return nil, err
	}
	return p.Data, nil
}

func (m *member) Encrypt(text []byte, padding int) ([]byte, error) {
	return m.group.Encrypt(text, nil, padding)
}

func (m *member) GroupInfo(o interop.GroupInfoOptions) ([]byte, error) {
	if o.NoTree {
		return m.group.GroupInfoWithoutTree()
	}
	return m.group.GroupInfo()
}

func (m *member) Tree() ([]byte, error) { return m.group.RatchetTree(), nil }

func (m *member) State() (interop.State, error) {
	s := interop.State{Epoch: m.group.Epoch(), Authenticator: m.group.EpochAuthenticator(), Active: m.group.Active()}
	for _, l := range m.group.Members() {
		s.Members = append(s.Members, interop.Leaf{Index: uint32(l.Index), Identity: string(l.Credential.Identity)})
	}
	exported, err := m.group.Export(interop.ExportLabel, []byte(interop.ExportContext), interop.ExportLength)
	s.Exported = exported
	return s, err
}
