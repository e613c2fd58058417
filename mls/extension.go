package mls

import (
	"fmt"
	"slices"
)

// ExtensionType names an extension (RFC 9420 §17.3).
type ExtensionType uint16

// The extensions that the engine knows.
const (
	ExtensionApplicationID        ExtensionType = 0x0001
	ExtensionRatchetTree          ExtensionType = 0x0002
	ExtensionRequiredCapabilities ExtensionType = 0x0003
	ExtensionExternalPub          ExtensionType = 0x0004
	ExtensionExternalSenders      ExtensionType = 0x0005
	ExtensionLastResort           ExtensionType = 0x000a
)

// isDefault reports whether every client implements the type, so that no
// capability needs to list it (RFC 9420 §7.2).
func (t ExtensionType) isDefault() bool {
	return t >= ExtensionApplicationID && t <= ExtensionExternalSenders
}

// Extension is a typed, opaque addition to a leaf, KeyPackage, GroupContext or
// GroupInfo (RFC 9420 §13). Unknown types are kept as they are.
type Extension struct {
	Type ExtensionType
	Data []byte
}

func (e Extension) append(b []byte) []byte {
	return appendOpaque(appendUint16(b, uint16(e.Type)), e.Data)
}

func decodeExtension(r *reader) Extension {
	return Extension{Type: ExtensionType(r.uint16()), Data: r.opaque()}
}

// Extensions is a list of extensions, each type at most once.
type Extensions []Extension

func (x Extensions) append(b []byte) []byte { return appendList(b, x) }

func decodeExtensions(r *reader) Extensions {
	x := Extensions(list(r, decodeExtension))
	if x.hasDuplicate() {
		r.fail("extension type given twice")
	}
	return x
}

func (x Extensions) hasDuplicate() bool {
	if len(x) < 2 {
		return false
	}
	var seen [1 << 16 / 64]uint64
	for _, e := range x {
		bit := uint64(1) << (e.Type % 64)
		if seen[e.Type/64]&bit != 0 {
			return true
		}
		seen[e.Type/64] |= bit
	}
	return false
}

// Find returns the data of the extension of type t, and whether there is one.
func (x Extensions) Find(t ExtensionType) ([]byte, bool) {
	for _, e := range x {
		if e.Type == t {
			return e.Data, true
		}
	}
	return nil, false
}

// RequiredCapabilities is the extension of the same name (RFC 9420 §11.1): what
// every member of the group must support.
type RequiredCapabilities struct {
	Extensions  []ExtensionType
	Proposals   []ProposalType
	Credentials []CredentialType
}

// Extension wraps the capabilities for a GroupContext.
func (rc RequiredCapabilities) Extension() Extension {
	b := appendUint16s(nil, rc.Extensions)
	b = appendUint16s(b, rc.Proposals)
	b = appendUint16s(b, rc.Credentials)
	return Extension{Type: ExtensionRequiredCapabilities, Data: b}
}

// requiredCapabilities decodes the extension; a list without it requires nothing.
func (x Extensions) requiredCapabilities() (rc RequiredCapabilities, err error) {
	data, ok := x.Find(ExtensionRequiredCapabilities)
	if !ok {
		return rc, nil
	}
	err = decode(data, "required_capabilities", func(r *reader) {
		rc.Extensions = decodeUint16s[ExtensionType](r)
		rc.Proposals = decodeUint16s[ProposalType](r)
		rc.Credentials = decodeUint16s[CredentialType](r)
	})
	return rc, err
}

// supportedBy judges the group's extensions against one member's capabilities:
// it must know each type, and meet required_capabilities (RFC 9420 §7.3, §11.1).
func (x Extensions) supportedBy(c *Capabilities) error {
	for _, e := range x {
		if !c.supportsExtension(e.Type) {
			return fmt.Errorf("%w: group extension 0x%04x", ErrUnsupportedCapability, uint16(e.Type))
		}
	}
	rc, err := x.requiredCapabilities()
	if err != nil {
		return err
	}
	return rc.metBy(c)
}

func (rc RequiredCapabilities) metBy(c *Capabilities) error {
	for _, t := range rc.Extensions {
		if !c.supportsExtension(t) {
			return fmt.Errorf("%w: required extension 0x%04x", ErrUnsupportedCapability, uint16(t))
		}
	}
	for _, t := range rc.Proposals {
		if !t.isDefault() && !slices.Contains(c.Proposals, t) {
			return fmt.Errorf("%w: required proposal 0x%04x", ErrUnsupportedCapability, uint16(t))
		}
	}
	for _, t := range rc.Credentials {
		if !slices.Contains(c.Credentials, t) {
			return fmt.Errorf("%w: required credential 0x%04x", ErrUnsupportedCapability, uint16(t))
		}
	}
	return nil
}

func appendUint16s[T ~uint16](b []byte, v []T) []byte {
	b = appendVarint(b, 2*len(v))
	for _, x := range v {
		b = appendUint16(b, uint16(x))
	}
	return b
}

func decodeUint16s[T ~uint16](r *reader) []T {
	return list(r, func(r *reader) T { return T(r.uint16()) })
}
