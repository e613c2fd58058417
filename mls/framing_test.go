package mls

import (
	"crypto/ed25519"
	"errors"
	"testing"
)

func TestVectorsTranscriptHashes(t *testing.T) {
	t.Parallel()
	type vector struct {
		ConfirmationKey hexBytes `json:"confirmation_key"`
		Content         hexBytes `json:"authenticated_content"`
		InterimBefore   hexBytes `json:"interim_transcript_hash_before"`
		ConfirmedAfter  hexBytes `json:"confirmed_transcript_hash_after"`
		InterimAfter    hexBytes `json:"interim_transcript_hash_after"`
	}
	runVectors(t, "transcript-hashes", 1, func(t *testing.T, v vector) {
		a := mustDecode(t, v.Content, decodeAuthenticatedContent)
		confirmed := confirmedTranscriptHash(v.InterimBefore, a)
		wantBytes(t, "confirmed", confirmed, v.ConfirmedAfter)
		wantBytes(t, "confirmation tag", computeMAC(v.ConfirmationKey, confirmed), a.confirmationTag)
		wantBytes(t, "interim", interimTranscriptHash(confirmed, a.confirmationTag), v.InterimAfter)
	})
}

type protectionVector struct {
	GroupID                 hexBytes `json:"group_id"`
	Epoch                   uint64
	TreeHash                hexBytes `json:"tree_hash"`
	ConfirmedTranscriptHash hexBytes `json:"confirmed_transcript_hash"`
	SignaturePriv           hexBytes `json:"signature_priv"`
	SignaturePub            hexBytes `json:"signature_pub"`
	EncryptionSecret        hexBytes `json:"encryption_secret"`
	SenderDataSecret        hexBytes `json:"sender_data_secret"`
	MembershipKey           hexBytes `json:"membership_key"`
	Proposal                hexBytes
	ProposalPriv            hexBytes `json:"proposal_priv"`
	ProposalPub             hexBytes `json:"proposal_pub"`
	Commit                  hexBytes
	CommitPriv              hexBytes `json:"commit_priv"`
	CommitPub               hexBytes `json:"commit_pub"`
	Application             hexBytes
	ApplicationPriv         hexBytes `json:"application_priv"`
}

func (v *protectionVector) context() []byte {
	return encode(&GroupContext{
		Version: versionMLS10, CipherSuite: SuiteX25519AES128GCMSHA256Ed25519, GroupID: v.GroupID,
		Epoch: v.Epoch, TreeHash: v.TreeHash, ConfirmedTranscriptHash: v.ConfirmedTranscriptHash,
	})
}

func (v *protectionVector) secretTree() *secretTree {
	return newSecretTree(append([]byte(nil), v.EncryptionSecret...), 2)
}

// openPrivate decrypts a message of the vector's member 1 and verifies it.
func (v *protectionVector) openPrivate(m *PrivateMessage) (*authenticatedContent, error) {
	d, err := m.openSenderData(v.SenderDataSecret)
	if err != nil {
		return nil, err
	}
	key, err := v.secretTree().find(d.leaf, ratchetFor(m.ContentType), d.generation)
	if err != nil {
		return nil, err
	}
	a, err := m.open(d, key.messageKey)
	if err != nil {
		return nil, err
	}
	return a, a.verify(v.SignaturePub, v.context())
}

func (v *protectionVector) openPublic(m *PublicMessage) (*authenticatedContent, error) {
	if err := m.verifyMembership(v.context(), v.MembershipKey); err != nil {
		return nil, err
	}
	return &m.auth, m.auth.verify(v.SignaturePub, v.context())
}

func TestVectorsMessageProtection(t *testing.T) {
	t.Parallel()
	runVectors(t, "message-protection", 1, func(t *testing.T, v protectionVector) {
		tests := []struct {
			name                  string
			kind                  ContentType
			content, public, priv hexBytes
		}{
			{"proposal", ContentProposal, v.Proposal, v.ProposalPub, v.ProposalPriv},
			{"commit", ContentCommit, v.Commit, v.CommitPub, v.CommitPriv},
			{"application", ContentApplication, v.Application, nil, v.ApplicationPriv},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				check := func(a *authenticatedContent, err error) {
					t.Helper()
					if err != nil {
						t.Fatal(err)
					}
					if a.content.contentType != tt.kind {
						t.Errorf("content type %d", a.content.contentType)
					}
					got := a.content.appendContent(nil)
					if tt.kind == ContentApplication {
						got = a.content.application
					}
					wantBytes(t, "content", got, tt.content)
				}
				if tt.public != nil {
					check(v.openPublic(mustParse(t, tt.public).PublicMessage))
				}
				check(v.openPrivate(mustParse(t, tt.priv).PrivateMessage))
				public, private := v.protect(t, tt.kind, tt.content)
				if tt.public != nil {
					check(v.openPublic(mustParse(t, public).PublicMessage))
				}
				check(v.openPrivate(mustParse(t, private).PrivateMessage))
			})
		}
	})
}

// protect frames the vector's content anew, both ways.
func (v *protectionVector) protect(t *testing.T, kind ContentType, content []byte) (public, private []byte) {
	a := &authenticatedContent{content: framedContent{
		groupID: v.GroupID, epoch: v.Epoch, sender: Sender{Type: SenderMember, Leaf: 1}, contentType: kind,
	}}
	if kind == ContentApplication {
		a.content.application = content
	} else if err := decode(content, "content", a.content.decodeContent); err != nil {
		t.Fatal(err)
	}
	sign := func(f WireFormat) {
		a.wireFormat = f
		a.signature = signWithLabel(ed25519.NewKeyFromSeed(v.SignaturePriv), "FramedContentTBS", a.tbs(v.context()))
		a.confirmationTag = make([]byte, hashSize)
	}
	sign(WireFormatPublicMessage)
	public = appendMessage(WireFormatPublicMessage, newPublicMessage(a, v.context(), v.MembershipKey))
	sign(WireFormatPrivateMessage)
	g, key, err := v.secretTree().take(1, ratchetFor(kind))
	if err != nil {
		t.Fatal(err)
	}
	d := senderData{leaf: 1, generation: g, reuseGuard: [4]byte{1, 2, 3, 4}}
	return public, appendMessage(WireFormatPrivateMessage, sealPrivateMessage(a, d, key, v.SenderDataSecret, 100))
}

func mustParse(t testing.TB, b []byte) *Message {
	t.Helper()
	m, err := ParseMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(b) {
		t.Error("message encodes to other bytes than it was parsed from")
	}
	return m
}

func TestPaddingMustBeZero(t *testing.T) {
	t.Parallel()
	v := loadVectors[protectionVector](t, "testdata/vectors/message-protection.json.gz")[0]
	m := mustParse(t, v.ApplicationPriv).PrivateMessage
	d, err := m.openSenderData(v.SenderDataSecret)
	if err != nil {
		t.Fatal(err)
	}
	key, err := v.secretTree().find(d.leaf, applicationRatchet, d.generation)
	if err != nil {
		t.Fatal(err)
	}
	pt, err := aeadOpen(key.key, d.guarded(key.nonce), m.ciphertext, m.appendAAD(nil))
	if err != nil {
		t.Fatal(err)
	}
	for tail, want := range map[string]error{"\x00\x00": nil, "\x00\x01": ErrMalformed, "\x01\x00": ErrMalformed} {
		m.ciphertext = aeadSeal(key.key, d.guarded(key.nonce), append(append([]byte(nil), pt...), tail...), m.appendAAD(nil))
		if _, err := m.open(d, key.messageKey); !errors.Is(err, want) {
			t.Errorf("padding %q: got %v, want %v", tail, err, want)
		}
	}
}
