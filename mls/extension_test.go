package mls

import (
	"errors"
	"testing"
)

func TestRequiredCapabilities(t *testing.T) {
	t.Parallel()
	caps := defaultCapabilities()
	tests := []struct {
		name string
		rc   RequiredCapabilities
		want error
	}{
		{"nothing", RequiredCapabilities{}, nil},
		{"what the engine has", RequiredCapabilities{
			Extensions: []ExtensionType{ExtensionLastResort}, Credentials: []CredentialType{CredentialBasic},
		}, nil},
		{"defaults", RequiredCapabilities{
			Extensions: []ExtensionType{ExtensionRatchetTree}, Proposals: []ProposalType{ProposalAdd, ProposalGroupContextExtensions},
		}, nil},
		{"extension", RequiredCapabilities{Extensions: []ExtensionType{0xf001}}, ErrUnsupportedCapability},
		{"proposal", RequiredCapabilities{Proposals: []ProposalType{0xf001}}, ErrUnsupportedCapability},
		{"credential", RequiredCapabilities{Credentials: []CredentialType{CredentialX509}}, ErrUnsupportedCapability},
	}
	for _, tt := range tests {
		x := Extensions{tt.rc.Extension()}
		if err := x.supportedBy(&caps); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		p := newPeer(t, "p")
		o := GroupOptions{GroupID: []byte("g"), Credential: BasicCredential([]byte("p")), Signer: p.signer, Extensions: x}
		if _, err := CreateGroup(o); !errors.Is(err, tt.want) {
			t.Errorf("%s: CreateGroup: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// A KeyPackage that lacks what the group requires is not added.
func TestAddMeetsRequiredCapabilities(t *testing.T) {
	t.Parallel()
	a, b := newPeer(t, "a"), newPeer(t, "b")
	g, err := CreateGroup(GroupOptions{
		GroupID: []byte("g"), Credential: BasicCredential([]byte("a")), Signer: a.signer,
		Extensions: Extensions{RequiredCapabilities{Extensions: []ExtensionType{ExtensionLastResort}}.Extension()},
	})
	if err != nil {
		t.Fatal(err)
	}
	poor := b.resigned(func(_ *KeyPackage, l *LeafNode) { l.Capabilities.Extensions = nil })
	for want, kp := range map[error]*KeyPackage{nil: b.bundle.KeyPackage(), ErrUnsupportedCapability: poor} {
		if _, err := g.Commit(CommitOptions{Adds: []*KeyPackage{kp}, AcceptTime: testNow}); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}

func TestGroupExtensionsRefused(t *testing.T) {
	t.Parallel()
	p := newPeer(t, "p")
	for name, x := range map[string]Extensions{
		"twice":                           {{Type: ExtensionApplicationID}, {Type: ExtensionApplicationID}},
		"malformed required_capabilities": {{Type: ExtensionRequiredCapabilities, Data: []byte{9}}},
		"malformed external_senders":      {{Type: ExtensionExternalSenders, Data: []byte{9}}},
	} {
		o := GroupOptions{GroupID: []byte("g"), Credential: BasicCredential([]byte("p")), Signer: p.signer, Extensions: x}
		if _, err := CreateGroup(o); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%s: got %v, want ErrInvalidArgument", name, err)
		}
	}
	if _, err := CreateGroup(GroupOptions{Credential: BasicCredential([]byte("p")), Signer: p.signer}); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("no group id: got %v, want ErrInvalidArgument", err)
	}
	twice := Extensions{{Type: 0x0a0a}, {Type: 0x0a0a}}
	if err := decode(encode(twice), "x", func(r *reader) { decodeExtensions(r) }); !errors.Is(err, ErrMalformed) {
		t.Errorf("decoded twice: got %v, want ErrMalformed", err)
	}
}
