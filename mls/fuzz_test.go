package mls

import (
	"slices"
	"testing"
)

// Every way in for bytes from outside is fuzzed: the decoders here, saved states in
// fuzzstate_test.go, and what a live group does with well-formed input in
// fuzzlive_test.go. The seeds are the official vectors and what the members of a saved
// group make: a fuzzing input is made in one process and tried in another, so that
// everything secret must be the same in both.

// seedMessages adds the official MLSMessages.
func seedMessages(f *testing.F, add func([]byte)) {
	for _, v := range loadVectors[passiveVector](f, "testdata/vectors/passive-client-handling-commit.json.gz") {
		add(v.KeyPackage)
		add(v.Welcome)
		for _, e := range v.Epochs {
			add(e.Commit)
			for _, p := range e.Proposals {
				add(p)
			}
		}
	}
	for _, v := range loadVectors[protectionVector](f, "testdata/vectors/message-protection.json.gz") {
		for _, b := range [][]byte{v.ProposalPriv, v.ProposalPub, v.CommitPriv, v.CommitPub, v.ApplicationPriv} {
			add(b)
		}
	}
}

// FuzzDecoders runs any decoder of the table, which has those as well that are
// reached through others only.
func FuzzDecoders(f *testing.F) {
	seen := map[string]int{}
	for _, s := range seedInputs(f) {
		if seen[s.decoder]++; seen[s.decoder] <= 2 {
			at := slices.IndexFunc(decoders, func(d decoder) bool { return d.name == s.decoder })
			f.Add(uint8(at), s.b) //nolint:gosec // a short table.
		}
	}
	for _, s := range bombs(f, 300) {
		at := slices.IndexFunc(decoders, func(d decoder) bool { return d.name == s.decoder })
		f.Add(uint8(at), s.b) //nolint:gosec // a short table.
	}
	f.Fuzz(func(t *testing.T, at uint8, b []byte) {
		decoders[int(at)%len(decoders)].check(t, b)
	})
}

func FuzzParseMessage(f *testing.F) {
	seedMessages(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		if !decoderNamed(t, "message").check(t, b) {
			return
		}
		m, err := ParseMessage(b)
		if err != nil {
			t.Fatal(err)
		}
		look(m)
	})
}

// look asks a message everything that can be asked of an unverified one.
func look(m *Message) {
	switch {
	case m.KeyPackage != nil:
		m.KeyPackage.Ref()
		m.KeyPackage.Lifetime()
		m.KeyPackage.LastResort()
		_ = m.KeyPackage.Verify(vectorTime, nil)
	case m.GroupInfo != nil:
		m.GroupInfo.ExternalPub()
		_ = m.GroupInfo.Verify(nil, nil)
		_, _ = NewPublicGroup(m.GroupInfo, nil, nil)
	case m.Welcome != nil:
		for _, ref := range m.Welcome.KeyPackageRefs() {
			m.Welcome.Includes(ref)
		}
	case m.PublicMessage != nil:
		_ = m.PublicMessage.checkForm()
		m.PublicMessage.auth.proposalRef()
	}
}

func FuzzKeyPackage(f *testing.F) {
	seedMessages(f, func(b []byte) {
		if m, err := ParseMessage(b); err == nil && m.KeyPackage != nil {
			f.Add(encode(m.KeyPackage), true)
			f.Add(encode(m.KeyPackage), false)
		}
	})
	p, adder := newPeer(f, "p"), newPeer(f, "adder")
	adder.create(f)
	f.Fuzz(func(t *testing.T, b []byte, sign bool) {
		if !decoderNamed(t, "key package").check(t, b) {
			return
		}
		var kp *KeyPackage
		_ = decode(b, "key package", func(r *reader) { kp = decodeKeyPackage(r) })
		if sign { // get past the signatures
			kp.LeafNode.SignatureKey = publicOf(p.signer)
			kp.LeafNode.sign(p.signer, nil, 0)
			kp.Signature = signWithLabel(p.signer, "KeyPackageTBS", kp.appendContent(nil))
		}
		if kp.Verify(vectorTime, nil) != nil {
			return
		}
		// What verifies can be added.
		c, err := adder.Commit(CommitOptions{Adds: []*KeyPackage{kp}, AcceptTime: vectorTime, ForcePath: true})
		if err != nil {
			t.Fatalf("verified, but cannot be added: %v", err)
		}
		mustParse(t, c.Welcome)
	})
}

func FuzzTree(f *testing.F) {
	type vector struct {
		Tree    hexBytes
		GroupID hexBytes `json:"group_id"`
	}
	var groupID []byte
	for _, v := range loadVectors[vector](f, "testdata/vectors/tree-validation.json.gz") {
		f.Add([]byte(v.Tree), uint32(1))
		groupID = v.GroupID
	}
	p := newPeer(f, "p")
	f.Fuzz(func(t *testing.T, b []byte, at uint32) {
		if !decoderNamed(t, "ratchet tree").check(t, b) {
			return
		}
		tr := treeOf(t, b)
		tr.treeHash()
		_ = tr.validate(&GroupContext{GroupID: groupID}, nil)
		i := LeafIndex(at % uint32(len(tr.leaves)))
		if tr.leaf(i) == nil {
			_, _ = tr.add(p.bundle.keyPackage.LeafNode)
			return
		}
		tr.generatePath(i, *tr.leaf(i), p.signer, groupID)
		tr.remove(i)
		if len(tr.leaves) > 1 {
			tr.treeHash()
		}
	})
}
