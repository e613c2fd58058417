package mls

import (
	"errors"
	"testing"
)

func TestVectorsSecretTree(t *testing.T) {
	t.Parallel()
	type vector struct {
		EncryptionSecret hexBytes `json:"encryption_secret"`
		SenderData       struct {
			Secret                 hexBytes `json:"sender_data_secret"`
			Ciphertext, Key, Nonce hexBytes
		} `json:"sender_data"`
		Leaves [][]struct {
			Generation       uint32
			ApplicationKey   hexBytes `json:"application_key"`
			ApplicationNonce hexBytes `json:"application_nonce"`
			HandshakeKey     hexBytes `json:"handshake_key"`
			HandshakeNonce   hexBytes `json:"handshake_nonce"`
		}
	}
	runVectors(t, "secret-tree", 3, func(t *testing.T, v vector) {
		key, nonce := senderDataKeys(v.SenderData.Secret, v.SenderData.Ciphertext)
		wantBytes(t, "sender data key", key, v.SenderData.Key)
		wantBytes(t, "sender data nonce", nonce, v.SenderData.Nonce)
		st := newSecretTree(append([]byte(nil), v.EncryptionSecret...), len(v.Leaves))
		for i, generations := range v.Leaves {
			for _, g := range generations {
				for kind, want := range map[ratchetKind][2]hexBytes{
					applicationRatchet: {g.ApplicationKey, g.ApplicationNonce},
					handshakeRatchet:   {g.HandshakeKey, g.HandshakeNonce},
				} {
					p, err := st.find(LeafIndex(i), kind, g.Generation)
					if err != nil {
						t.Fatal(err)
					}
					wantBytes(t, "key", p.key, want[0])
					wantBytes(t, "nonce", p.nonce, want[1])
					p.consume()
				}
			}
		}
	})
}

func testSecretTree(leaves int) *secretTree { return newSecretTree(randomBytes(hashSize), leaves) }

func TestSecretTreeKeyIsUsedOnce(t *testing.T) {
	t.Parallel()
	st := testSecretTree(4)
	use := func(g uint32) error {
		p, err := st.find(1, applicationRatchet, g)
		if err == nil {
			p.consume()
		}
		return err
	}
	for _, g := range []uint32{3, 0, 2, 1, 4} {
		if err := use(g); err != nil {
			t.Fatalf("generation %d: %v", g, err)
		}
	}
	for g := range uint32(5) {
		if err := use(g); !errors.Is(err, ErrReplay) {
			t.Errorf("generation %d again: got %v, want ErrReplay", g, err)
		}
	}
	if st.stored != 0 {
		t.Errorf("%d keys stored, want none", st.stored)
	}
}

func TestSecretTreeFindLeavesNoTrace(t *testing.T) {
	t.Parallel()
	st := testSecretTree(8)
	before := st.append(nil)
	for range 2 {
		if _, err := st.find(5, handshakeRatchet, 7); err != nil {
			t.Fatal(err)
		}
	}
	wantBytes(t, "state after find", st.append(nil), before)
}

func TestSecretTreeBounds(t *testing.T) {
	t.Parallel()
	st := testSecretTree(64)
	if _, err := st.find(0, applicationRatchet, maxSkip+1); !errors.Is(err, ErrGenerationTooFar) {
		t.Errorf("got %v, want ErrGenerationTooFar", err)
	}
	if _, err := st.find(64, applicationRatchet, 0); !errors.Is(err, ErrNoSuchMember) {
		t.Errorf("got %v, want ErrNoSuchMember", err)
	}
	skip := func(i LeafIndex, g uint32) {
		t.Helper()
		p, err := st.find(i, applicationRatchet, g)
		if err != nil {
			t.Fatal(err)
		}
		p.consume()
	}
	// One ratchet keeps the newest keys only.
	skip(0, maxSkip)
	skip(0, 2*maxSkip)
	if st.stored != maxSkip {
		t.Errorf("%d keys stored, want %d", st.stored, maxSkip)
	}
	if _, err := st.find(0, applicationRatchet, maxSkip-2); !errors.Is(err, ErrReplay) {
		t.Errorf("dropped key: got %v, want ErrReplay", err)
	}
	// All ratchets together are bounded as well.
	for i := range LeafIndex(20) {
		skip(i+1, maxSkip)
	}
	total := 0
	for _, s := range st.senders {
		total += len(s[applicationRatchet].skipped)
	}
	if st.stored != maxSkippedTotal || total != st.stored {
		t.Errorf("%d keys stored, %d counted, want %d", st.stored, total, maxSkippedTotal)
	}
}

func TestRatchetEndsAtTheLastGeneration(t *testing.T) {
	t.Parallel()
	st := testSecretTree(1)
	if _, _, err := st.take(0, applicationRatchet); err != nil {
		t.Fatal(err)
	}
	st.senders[0][applicationRatchet].next = 1<<32 - 1
	if g, _, err := st.take(0, applicationRatchet); err != nil || g != 1<<32-1 {
		t.Fatalf("generation %d, %v", g, err)
	}
	if _, _, err := st.take(0, applicationRatchet); !errors.Is(err, ErrRatchetExhausted) {
		t.Errorf("got %v, want ErrRatchetExhausted", err)
	}
}
