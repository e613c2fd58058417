package mls

import (
	"bytes"
	"fmt"
)

// WireFormat says what an MLSMessage carries (RFC 9420 §6).
type WireFormat uint16

// The kinds of MLSMessage.
const (
	WireFormatPublicMessage  WireFormat = 1
	WireFormatPrivateMessage WireFormat = 2
	WireFormatWelcome        WireFormat = 3
	WireFormatGroupInfo      WireFormat = 4
	WireFormatKeyPackage     WireFormat = 5
)

// Message is a decoded MLSMessage (RFC 9420 §6): WireFormat says which one of the
// other fields is set. Decoding proves the form only; nothing is verified yet. What to
// do with each: Group.Process or PublicGroup.Process a PublicMessage, Group.Process a
// PrivateMessage, JoinGroup by a Welcome, JoinExternal or NewPublicGroup by a
// GroupInfo, and KeyPackage.Verify a KeyPackage before it is added.
type Message struct {
	WireFormat     WireFormat
	PublicMessage  *PublicMessage
	PrivateMessage *PrivateMessage
	Welcome        *Welcome
	GroupInfo      *GroupInfo
	KeyPackage     *KeyPackage
}

// ParseMessage decodes one MLSMessage strictly: shortest lengths, known types,
// nothing after the end. The result does not share memory with b. Errors:
// ErrMalformed, ErrTooLarge, ErrUnsupportedVersion, ErrUnsupportedCredential.
func ParseMessage(b []byte) (*Message, error) {
	if len(b) > MaxMessageSize {
		return nil, fmt.Errorf("%w: message of %d bytes, limit %d", ErrTooLarge, len(b), MaxMessageSize)
	}
	m := &Message{}
	if err := decode(bytes.Clone(b), "message", m.decode); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Message) decode(r *reader) {
	if v := r.uint16(); r.err == nil && v != versionMLS10 {
		r.failWith(ErrUnsupportedVersion, fmt.Sprint(v))
	}
	m.WireFormat = WireFormat(r.uint16())
	switch m.WireFormat {
	case WireFormatPublicMessage:
		m.PublicMessage = decodePublicMessage(r)
	case WireFormatPrivateMessage:
		m.PrivateMessage = decodePrivateMessage(r)
	case WireFormatWelcome:
		m.Welcome = decodeWelcome(r)
	case WireFormatGroupInfo:
		m.GroupInfo = decodeGroupInfo(r)
	case WireFormatKeyPackage:
		m.KeyPackage = decodeKeyPackage(r)
	default:
		r.fail("wire format")
	}
}

// Marshal encodes the message again, byte for byte as it was parsed.
func (m *Message) Marshal() ([]byte, error) {
	switch {
	case m.PublicMessage != nil:
		return appendMessage(WireFormatPublicMessage, m.PublicMessage), nil
	case m.PrivateMessage != nil:
		return appendMessage(WireFormatPrivateMessage, m.PrivateMessage), nil
	case m.Welcome != nil:
		return appendMessage(WireFormatWelcome, m.Welcome), nil
	case m.GroupInfo != nil:
		return appendMessage(WireFormatGroupInfo, m.GroupInfo), nil
	case m.KeyPackage != nil:
		return appendMessage(WireFormatKeyPackage, m.KeyPackage), nil
	}
	return nil, fmt.Errorf("%w: empty message", ErrInvalidArgument)
}

// appendMessage wraps a structure in an MLSMessage.
func appendMessage(f WireFormat, v encodable) []byte {
	b := appendUint16(nil, versionMLS10)
	b = appendUint16(b, uint16(f))
	return v.append(b)
}
