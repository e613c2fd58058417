package mls

import (
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
)

// savedGroupFile holds the saved states of four members of a group, and a newcomer's
// bundle. It was written once by this engine, by TestSavedGroupStillLoads with
// MLS_WRITE_SAVED_GROUP set, and is never to be replaced while version 1 of the state
// is in use anywhere: it shows that an older program's states load. Fuzzing needs it
// too: inputs are made in one process and tried in another, and both must know the
// same keys.
const savedGroupFile = "testdata/saved-group.json.gz"

type savedPeer struct{ Name, Signer, Bundle, Group string }

// savedGroup returns the four members and the newcomer.
func savedGroup(t testing.TB) (members []*peer, newcomer *peer) {
	t.Helper()
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, s := range loadVectors[savedPeer](t, savedGroupFile) {
		p := &peer{name: s.Name, signer: ed25519.NewKeyFromSeed(unhex(s.Signer))}
		var err error
		if p.bundle, err = UnmarshalKeyPackageBundle(unhex(s.Bundle)); err != nil {
			t.Fatal(err)
		}
		if s.Group == "" {
			return members, p
		}
		if p.Group, err = UnmarshalGroup(unhex(s.Group), p.signer, nil); err != nil {
			t.Fatal(err)
		}
		members = append(members, p)
	}
	t.Fatal("no newcomer in the file")
	return nil, nil
}

func TestSavedGroupStillLoads(t *testing.T) {
	if os.Getenv("MLS_WRITE_SAVED_GROUP") != "" {
		writeSavedGroup(t)
	}
	t.Parallel()
	members, newcomer := savedGroup(t)
	if len(members) != 4 {
		t.Fatalf("%d members, want 4", len(members))
	}
	wantAgreement(t, members)
	a, b := members[0], members[1]
	if b.ProposalsWaiting() != 1 || len(b.past) != 2 || len(b.cur.ownUpdates) != 1 {
		t.Errorf("%d proposals, %d past epochs, %d updates: the file lost something", b.ProposalsWaiting(), len(b.past), len(b.cur.ownUpdates))
	}
	b.mustProcess(t, a.mustEncrypt(t, "hello"))
	c := a.mustCommit(t, CommitOptions{Adds: keyPackagesOf([]*peer{newcomer})})
	spread(t, members, a, c)
	newcomer.join(t, c.Welcome)
	wantAgreement(t, append(members, newcomer))
}

func writeSavedGroup(t *testing.T) {
	t.Helper()
	peers := newGroup(t, 4)
	b := peers[1]
	for _, from := range peers[:2] {
		spread(t, peers, from, from.mustCommit(t, CommitOptions{ForcePath: true}))
		from.mustEncrypt(t, "lost")
		for _, to := range peers {
			if to != from {
				m := from.mustEncrypt(t, "not lost")
				to.mustProcess(t, m)
			}
		}
	}
	update, err := b.Propose(ProposeOptions{Update: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range peers {
		if p != b {
			p.mustProcess(t, update)
		}
	}
	var out []savedPeer
	for _, p := range append(peers, newPeer(t, "newcomer")) {
		bundle, err := p.bundle.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		s := savedPeer{Name: p.name, Signer: hex.EncodeToString(p.signer.Seed()), Bundle: hex.EncodeToString(bundle)}
		if p.Group != nil {
			s.Group = hex.EncodeToString(marshal(t, p.Group))
		}
		out = append(out, s)
	}
	text, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(savedGroupFile, z.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
