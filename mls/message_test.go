package mls

import "testing"

func TestVectorsMessages(t *testing.T) {
	t.Parallel()
	path := sharedVectors(t, "messages")
	kinds := map[string]func(*testing.T, []byte){
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
		if len(v) != len(kinds) {
			t.Errorf("%d kinds of message, want %d", len(v), len(kinds))
		}
		for name, b := range v {
			kinds[name](t, b)
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
