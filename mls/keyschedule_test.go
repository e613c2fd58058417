package mls

import "testing"

func TestVectorsKeySchedule(t *testing.T) {
	t.Parallel()
	type epochVector struct {
		TreeHash                hexBytes `json:"tree_hash"`
		CommitSecret            hexBytes `json:"commit_secret"`
		PSKSecret               hexBytes `json:"psk_secret"`
		ConfirmedTranscriptHash hexBytes `json:"confirmed_transcript_hash"`
		GroupContext            hexBytes `json:"group_context"`
		JoinerSecret            hexBytes `json:"joiner_secret"`
		WelcomeSecret           hexBytes `json:"welcome_secret"`
		InitSecret              hexBytes `json:"init_secret"`
		SenderDataSecret        hexBytes `json:"sender_data_secret"`
		EncryptionSecret        hexBytes `json:"encryption_secret"`
		ExporterSecret          hexBytes `json:"exporter_secret"`
		EpochAuthenticator      hexBytes `json:"epoch_authenticator"`
		ExternalSecret          hexBytes `json:"external_secret"`
		ConfirmationKey         hexBytes `json:"confirmation_key"`
		MembershipKey           hexBytes `json:"membership_key"`
		ResumptionPSK           hexBytes `json:"resumption_psk"`
		ExternalPub             hexBytes `json:"external_pub"`
		Exporter                struct {
			Label           string
			Context, Secret hexBytes
			Length          int
		}
	}
	type vector struct {
		GroupID    hexBytes `json:"group_id"`
		InitSecret hexBytes `json:"initial_init_secret"`
		Epochs     []epochVector
	}
	runVectors(t, "key-schedule", 1, func(t *testing.T, v vector) {
		initSecret := []byte(v.InitSecret)
		for i, e := range v.Epochs {
			context := encode(&GroupContext{
				Version: versionMLS10, CipherSuite: SuiteX25519AES128GCMSHA256Ed25519, GroupID: v.GroupID,
				Epoch: uint64(i), TreeHash: e.TreeHash, ConfirmedTranscriptHash: e.ConfirmedTranscriptHash,
			})
			wantBytes(t, "group context", context, e.GroupContext)
			joiner := joinerSecret(initSecret, e.CommitSecret, context)
			wantBytes(t, "joiner", joiner, e.JoinerSecret)
			welcome, member := welcomeAndMember(joiner, e.PSKSecret)
			wantBytes(t, "welcome", welcome, e.WelcomeSecret)
			s, encryption := deriveEpochSecrets(epochSecret(member, context))
			wantBytes(t, "encryption", encryption, e.EncryptionSecret)
			wantBytes(t, "init", s.init, e.InitSecret)
			wantBytes(t, "sender data", s.senderData, e.SenderDataSecret)
			wantBytes(t, "exporter", s.exporter, e.ExporterSecret)
			wantBytes(t, "external", s.external, e.ExternalSecret)
			wantBytes(t, "confirmation", s.confirmation, e.ConfirmationKey)
			wantBytes(t, "membership", s.membership, e.MembershipKey)
			wantBytes(t, "resumption", s.resumption, e.ResumptionPSK)
			wantBytes(t, "authenticator", s.authenticator, e.EpochAuthenticator)
			wantBytes(t, "external_pub", s.externalPublic(), e.ExternalPub)
			x := e.Exporter
			wantBytes(t, "exported", s.export(x.Label, x.Context, x.Length), x.Secret)
			initSecret = s.init
		}
	})
}

func TestExternalInit(t *testing.T) {
	t.Parallel()
	s, _ := deriveEpochSecrets(randomBytes(hashSize))
	kem, initSecret, err := newExternalInit(s.externalPublic())
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.externalInit(kem)
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "init secret", got, initSecret)
	if _, err := s.externalInit(kem[1:]); err == nil {
		t.Error("a cut KEM output is accepted")
	}
	if _, _, err := newExternalInit(make([]byte, 32)); err == nil {
		t.Error("a public key of low order is accepted")
	}
}
