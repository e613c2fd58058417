package mls

import (
	"crypto/ed25519"
	"testing"
)

type treeKEMVector struct {
	GroupID                 hexBytes `json:"group_id"`
	Epoch                   uint64
	ConfirmedTranscriptHash hexBytes `json:"confirmed_transcript_hash"`
	RatchetTree             hexBytes `json:"ratchet_tree"`
	LeavesPrivate           []struct {
		Index          LeafIndex
		EncryptionPriv hexBytes `json:"encryption_priv"`
		SignaturePriv  hexBytes `json:"signature_priv"`
		PathSecrets    []struct {
			Node       nodeIndex
			PathSecret hexBytes `json:"path_secret"`
		} `json:"path_secrets"`
	} `json:"leaves_private"`
	UpdatePaths []struct {
		Sender        LeafIndex
		UpdatePath    hexBytes   `json:"update_path"`
		PathSecrets   []hexBytes `json:"path_secrets"`
		CommitSecret  hexBytes   `json:"commit_secret"`
		TreeHashAfter hexBytes   `json:"tree_hash_after"`
	} `json:"update_paths"`
}

// keys returns each member's private keys, and checks them against the tree.
func (v *treeKEMVector) keys(t *testing.T, tr *tree) map[LeafIndex]pathKeys {
	out := map[LeafIndex]pathKeys{}
	for _, l := range v.LeavesPrivate {
		k := pathKeys{leaf: l.EncryptionPriv, parents: map[nodeIndex][]byte{}}
		if !privateMatches(k.leaf, tr.leaf(l.Index).EncryptionKey) {
			t.Errorf("leaf %d: private key does not match", l.Index)
		}
		for _, s := range l.PathSecrets {
			pair := pathSecretKeys(s.PathSecret)
			wantBytes(t, "public key from path secret", pair.public, tr.publicKey(s.Node))
			k.parents[s.Node] = pair.private
		}
		out[l.Index] = k
	}
	return out
}

func (v *treeKEMVector) context(treeHash []byte) []byte {
	return encode(&GroupContext{
		Version: versionMLS10, CipherSuite: SuiteX25519AES128GCMSHA256Ed25519, GroupID: v.GroupID,
		Epoch: v.Epoch, TreeHash: treeHash, ConfirmedTranscriptHash: v.ConfirmedTranscriptHash,
	})
}

func TestVectorsTreeKEM(t *testing.T) {
	t.Parallel()
	runVectors(t, "treekem", 11, func(t *testing.T, v treeKEMVector) {
		before := mustParseTree(t, v.RatchetTree)
		keys := v.keys(t, before)
		for _, u := range v.UpdatePaths {
			path := mustDecode(t, u.UpdatePath, decodeUpdatePath)
			tr := before.clone()
			steps, err := tr.applyPath(u.Sender, path)
			if err != nil {
				t.Fatal(err)
			}
			if err := path.LeafNode.verifySignature(v.GroupID, u.Sender); err != nil {
				t.Error(err)
			}
			h := tr.treeHash()
			wantBytes(t, "tree hash after", h[:], u.TreeHashAfter)
			for i, k := range keys {
				if i == u.Sender {
					continue
				}
				_, commitSecret, err := tr.openPath(i, k, path, steps, nil, v.context(h[:]))
				if err != nil {
					t.Fatalf("leaf %d: %v", i, err)
				}
				wantBytes(t, "commit secret", commitSecret, u.CommitSecret)
			}
			v.ownPath(t, before.clone(), u.Sender, keys)
		}
	})
}

// ownPath generates a fresh path for the same sender, which everyone must be able to open.
func (v *treeKEMVector) ownPath(t *testing.T, tr *tree, sender LeafIndex, keys map[LeafIndex]pathKeys) {
	receiver := tr.clone()
	var signer ed25519.PrivateKey
	for _, l := range v.LeavesPrivate {
		if l.Index == sender {
			signer = ed25519.NewKeyFromSeed(l.SignaturePriv)
		}
	}
	p := tr.generatePath(sender, *tr.leaf(sender), signer, v.GroupID)
	h := tr.treeHash()
	if err := p.encrypt(tr, nil, v.context(h[:])); err != nil {
		t.Fatal(err)
	}
	path := mustDecode(t, encode(p.path), decodeUpdatePath)
	steps, err := receiver.applyPath(sender, path)
	if err != nil {
		t.Fatal(err)
	}
	if receiver.treeHash() != h {
		t.Error("sender and receiver disagree on the tree")
	}
	for i, k := range keys {
		if i == sender {
			continue
		}
		next, commitSecret, err := receiver.openPath(i, k, path, steps, nil, v.context(h[:]))
		if err != nil {
			t.Fatalf("leaf %d: %v", i, err)
		}
		wantBytes(t, "commit secret", commitSecret, p.commitSecret)
		for x, private := range next.parents {
			if !privateMatches(private, receiver.publicKey(x)) {
				t.Errorf("leaf %d: key of node %d does not match the tree", i, x)
			}
		}
	}
}
