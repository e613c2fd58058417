package mls

import (
	"slices"
	"testing"
)

func mustParseTree(t testing.TB, b []byte) *tree {
	t.Helper()
	tr, err := parseTree(b)
	if err != nil {
		t.Fatal(err)
	}
	if string(tr.encode()) != string(b) {
		t.Error("tree encodes to other bytes than it was parsed from")
	}
	return tr
}

func TestVectorsTreeValidation(t *testing.T) {
	t.Parallel()
	type vector struct {
		Tree        hexBytes
		GroupID     hexBytes      `json:"group_id"`
		TreeHashes  []hexBytes    `json:"tree_hashes"`
		Resolutions [][]nodeIndex `json:"resolutions"`
	}
	runVectors(t, "tree-validation", 14, func(t *testing.T, v vector) {
		tr := mustParseTree(t, v.Tree)
		for x := range nodeIndex(len(v.TreeHashes)) {
			wantBytes(t, "tree hash", tr.hash(x)[:], v.TreeHashes[x])
			if got := tr.resolution(x, nil); !slices.Equal(got, v.Resolutions[x]) {
				t.Errorf("resolution of %d: got %v, want %v", x, got, v.Resolutions[x])
			}
			if empty := len(v.Resolutions[x]) == 0; tr.isEmpty(x) != empty {
				t.Errorf("isEmpty(%d) is not %v", x, empty)
			}
		}
		if err := tr.validate(&GroupContext{GroupID: v.GroupID}, nil); err != nil {
			t.Error(err)
		}
	})
}

func TestVectorsTreeOperations(t *testing.T) {
	t.Parallel()
	type vector struct {
		TreeBefore     hexBytes `json:"tree_before"`
		Proposal       hexBytes
		Sender         LeafIndex `json:"proposal_sender"`
		TreeHashBefore hexBytes  `json:"tree_hash_before"`
		TreeAfter      hexBytes  `json:"tree_after"`
		TreeHashAfter  hexBytes  `json:"tree_hash_after"`
	}
	runVectors(t, "tree-operations", 5, func(t *testing.T, v vector) {
		before := mustParseTree(t, v.TreeBefore)
		p := mustDecode(t, v.Proposal, decodeProposal)
		h := before.treeHash()
		wantBytes(t, "tree hash before", h[:], v.TreeHashBefore)
		tr := &transition{from: &publicState{tree: before}, tree: before.clone()}
		if err := tr.apply(proposalEntry{proposal: p, sender: Sender{Type: SenderMember, Leaf: v.Sender}}); err != nil {
			t.Fatal(err)
		}
		h = tr.tree.treeHash()
		wantBytes(t, "tree hash after", h[:], v.TreeHashAfter)
		wantBytes(t, "tree after", tr.tree.encode(), v.TreeAfter)
		h = before.treeHash()
		wantBytes(t, "tree that was cloned", h[:], v.TreeHashBefore)
		wantBytes(t, "tree that was cloned", before.encode(), v.TreeBefore)
	})
}
