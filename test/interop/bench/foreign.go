package main

import (
	"crypto/ed25519"

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

// welcomes makes the Welcome of a Commit with a path into everybody, and of one
// without into one: there the parents above the newcomer list it as unmerged.
func (f *foreign) welcomes(keyPackage []byte) (full, unmerged []byte, err error) {
	if full, err = invitation(f.everybody, keyPackage, true); err != nil {
		return nil, nil, err
	}
	unmerged, err = invitation(f.one, keyPackage, false)
	return full, unmerged, err
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
		newcomers, err := people("newcomer", min(fullStep, n-size), newOurClient)
		if err != nil {
			return nil, err
		}
		kps := keyPackagesOf(newcomers)
		p, err := g.Commit(mls.CommitOptions{Adds: kps, ForcePath: true})
		if err != nil {
			return nil, err
		}
		if g, err = join(p.Welcome, newcomers[len(newcomers)-1]); err != nil {
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
	newcomers, err := people("newcomer", n-1, newOurClient)
	if err != nil {
		return nil, err
	}
	p, err := g.Commit(mls.CommitOptions{Adds: keyPackagesOf(newcomers), ForcePath: true})
	if err != nil {
		return nil, err
	}
	return g, g.Merge(p)
}

func keyPackagesOf(clients []*ourClient) []*mls.KeyPackage {
	kps := make([]*mls.KeyPackage, len(clients))
	for i, c := range clients {
		kps[i] = c.bundle.KeyPackage()
	}
	return kps
}
