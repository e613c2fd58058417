package main

import (
	"crypto/ed25519"
	"fmt"

	"quicproquo.dev/mls"
)

// fullStep is how many members each Commit of a full tree adds.
const fullStep = 4

// foreign holds two groups that our engine made, for every engine to join.
type foreign struct {
	// everybody has members all over the tree that have committed, so that most parent
	// nodes hold keys and parent hashes.
	everybody *mls.Group
	// one has parents above its creator alone.
	one *mls.Group
}

// newForeign makes groups with room for one more member of n.
func newForeign(n int) (*foreign, error) {
	everybody, err := newFull(n - 1)
	if err != nil {
		return nil, err
	}
	one, err := newSparse(n - 1)
	return &foreign{everybody: everybody, one: one}, err
}

// full makes the Welcome of a Commit with a path.
func (f *foreign) full(keyPackage []byte) ([]byte, error) {
	return invitation(f.everybody, keyPackage, true)
}

// unmerged makes the Welcome of a Commit without a path: the parents above the
// newcomer list it as unmerged.
func (f *foreign) unmerged(keyPackage []byte) ([]byte, error) {
	return invitation(f.one, keyPackage, false)
}

func invitation(g *mls.Group, keyPackage []byte, path bool) ([]byte, error) {
	m, err := mls.ParseMessage(keyPackage)
	if err != nil {
		return nil, err
	}
	p, err := g.Commit(mls.CommitOptions{Adds: []*mls.KeyPackage{m.KeyPackage}, ForcePath: path})
	if err != nil {
		return nil, err
	}
	return p.Welcome, nil
}

func newAlone() (*mls.Group, error) {
	_, signer, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	return mls.CreateGroup(mls.GroupOptions{
		GroupID: []byte("foreign"), Credential: mls.BasicCredential([]byte("creator")), Signer: signer,
	})
}

// newFull lets the last newcomer add the next ones, until there are n.
func newFull(n int) (*mls.Group, error) {
	g, err := newAlone()
	if err != nil {
		return nil, err
	}
	for size := 1; size < n; {
		kps, last, err := newOurClients(min(fullStep, n-size))
		if err != nil {
			return nil, err
		}
		p, err := g.Commit(mls.CommitOptions{Adds: kps, ForcePath: true})
		if err != nil {
			return nil, err
		}
		if g, err = join(p.Welcome, last); err != nil {
			return nil, err
		}
		size += len(kps)
	}
	return g, nil
}

// newSparse lets the creator add all others at once, with a path.
func newSparse(n int) (*mls.Group, error) {
	g, err := newAlone()
	if err != nil || n == 1 {
		return g, err
	}
	kps, _, err := newOurClients(n - 1)
	if err != nil {
		return nil, err
	}
	p, err := g.Commit(mls.CommitOptions{Adds: kps, ForcePath: true})
	if err != nil {
		return nil, err
	}
	return g, g.Merge(p)
}

func newOurClients(n int) (kps []*mls.KeyPackage, last *ourClient, err error) {
	for i := range n {
		if last, err = newOurClient(fmt.Sprintf("newcomer-%d", i)); err != nil {
			return nil, nil, err
		}
		kps = append(kps, last.bundle.KeyPackage())
	}
	return kps, last, nil
}
