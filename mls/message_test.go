package mls

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
)

func TestVectorsMessages(t *testing.T) {
	t.Parallel()
	path := sharedVectors(t, "messages")
	decoders := map[string]func(*testing.T, []byte){
		"mls_welcome":                       func(t *testing.T, b []byte) { wantKind(t, mustParse(t, b).Welcome != nil) },
		"mls_group_info":                    func(t *testing.T, b []byte) { wantKind(t, mustParse(t, b).GroupInfo != nil) },
		"mls_key_package":                   func(t *testing.T, b []byte) { wantKind(t, mustParse(t, b).KeyPackage != nil) },
		"public_message_application":        wantPublic(ContentApplication),
		"public_message_proposal":           wantPublic(ContentProposal),
		"public_message_commit":             wantPublic(ContentCommit),
		"private_message":                   func(t *testing.T, b []byte) { wantKind(t, mustParse(t, b).PrivateMessage != nil) },
		"ratchet_tree":                      func(t *testing.T, b []byte) { mustParseTree(t, b) },
		"group_secrets":                     func(t *testing.T, b []byte) { mustDecode(t, b, decodeGroupSecrets) },
		"commit":                            func(t *testing.T, b []byte) { mustDecode(t, b, decodeCommit) },
		"add_proposal":                      wantProposal(ProposalAdd),
		"update_proposal":                   wantProposal(ProposalUpdate),
		"remove_proposal":                   wantProposal(ProposalRemove),
		"pre_shared_key_proposal":           wantProposal(ProposalPSK),
		"re_init_proposal":                  wantProposal(ProposalReInit),
		"external_init_proposal":            wantProposal(ProposalExternalInit),
		"group_context_extensions_proposal": wantProposal(ProposalGroupContextExtensions),
	}
	runVectorFile(t, path, 300, func(t *testing.T, v map[string]hexBytes) {
		if len(v) != len(decoders) {
			t.Errorf("%d kinds of message, want %d", len(v), len(decoders))
		}
		for name, b := range v {
			decoders[name](t, b)
		}
	})
}

func wantKind(t *testing.T, ok bool) {
	t.Helper()
	if !ok {
		t.Error("decoded as another kind of message")
	}
}

func wantPublic(kind ContentType) func(*testing.T, []byte) {
	return func(t *testing.T, b []byte) {
		t.Helper()
		m := mustParse(t, b)
		wantKind(t, m.PublicMessage != nil && m.PublicMessage.ContentType() == kind)
	}
}

// wantProposal decodes a proposal that the vectors give without its type.
func wantProposal(kind ProposalType) func(*testing.T, []byte) {
	return func(t *testing.T, b []byte) {
		t.Helper()
		mustDecode(t, append(appendUint16(nil, uint16(kind)), b...), decodeProposal)
	}
}

// decoders are all the ways into the engine for bytes from outside.
var decoders = map[string]func([]byte) error{
	"message": func(b []byte) error { _, err := ParseMessage(b); return err },
	"tree":    func(b []byte) error { _, err := parseTree(b); return err },
	"bundle":  func(b []byte) error { _, err := UnmarshalKeyPackageBundle(b); return err },
	"group":   func(b []byte) error { _, err := UnmarshalGroup(b, make([]byte, 64), nil); return err },

	"public message":        tryDecode(decodePublicMessage),
	"private message":       tryDecode(decodePrivateMessage),
	"welcome":               tryDecode(decodeWelcome),
	"group info":            tryDecode(decodeGroupInfo),
	"key package":           tryDecode(decodeKeyPackage),
	"proposal":              tryDecode(decodeProposal),
	"commit":                tryDecode(decodeCommit),
	"authenticated content": tryDecode(decodeAuthenticatedContent),
	"leaf node":             tryDecode(decodeLeafNode),
	"group secrets":         tryDecode(decodeGroupSecrets),
	"update path":           tryDecode(decodeUpdatePath),
}

func tryDecode[T any](f func(*reader) T) func([]byte) error {
	return func(b []byte) error { return decode(b, "test", func(r *reader) { f(r) }) }
}

// Messages of the engine github.com/cisco/go-mls, which speaks draft 09: accepting
// one would be a downgrade.
func TestDraft09IsRefused(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/draft09-fixtures.json")
	if err != nil {
		t.Fatal(err)
	}
	var fixtures map[string]string
	if err := json.Unmarshal(raw, &fixtures); err != nil {
		t.Fatal(err)
	}
	if len(fixtures) != 5 {
		t.Fatalf("%d fixtures, want 5", len(fixtures))
	}
	for name, text := range fixtures {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		for decoder, f := range decoders {
			if f(b) == nil {
				t.Errorf("%s: accepted as %s", name, decoder)
			}
			// The same behind an MLSMessage header of each kind.
			for kind := WireFormatPublicMessage; kind <= WireFormatKeyPackage; kind++ {
				wrapped := append(appendUint16(appendUint16(nil, versionMLS10), uint16(kind)), b...)
				if f(wrapped) == nil {
					t.Errorf("%s in wire format %d: accepted as %s", name, kind, decoder)
				}
			}
		}
	}
}
