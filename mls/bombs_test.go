package mls

import (
	"bytes"
	"slices"
	"testing"
)

// bombs returns inputs of about n bytes that are made to cost as much memory as
// they can: as many of the smallest elements as there is room for, for every list.
func bombs(t testing.TB, n int) []seedInput {
	t.Helper()
	many := func(element ...byte) []byte { return appendOpaque(nil, bytes.Repeat(element, n/len(element))) }
	leaf := encode(newPeer(t, "p").bundle.KeyPackage().LeafNode)
	last := slices.Concat([]byte{1, nodeTypeLeaf}, leaf)
	var distinct []byte
	for i := range min(n/3, 1<<16-1) {
		distinct = append(appendUint16(distinct, uint16(i)), 0) //nolint:gosec // below.
	}
	var replaced []byte
	for i := range n / 5 {
		replaced = append(appendUint32(replaced, uint32(i)), 0) //nolint:gosec // small.
	}
	var nodes []byte
	for i := range n / 36 {
		nodes = append(appendUint32(nodes, uint32(i)), make([]byte, hashSize)...) //nolint:gosec // small.
	}
	var usedUp []byte
	for i := range n / 24 {
		usedUp = appendUint32(usedUp, uint32(i)) //nolint:gosec // small.
		for range 2 {
			usedUp = append(appendUint64(usedUp, 1<<33), 0, 0)
		}
	}
	inMessage := func(f WireFormat, b ...[]byte) []byte {
		return append(appendUint16(appendUint16(nil, versionMLS10), uint16(f)), slices.Concat(b...)...)
	}
	public := func(content ContentType) []byte { // a member's message of group "" in epoch 0, up to the content
		return slices.Concat([]byte{0}, make([]byte, 8), []byte{byte(SenderMember), 0, 0, 0, 0}, []byte{0, byte(content)})
	}
	context := make([]byte, 2+2+1+8+1+1) // up to its extensions
	tail := []byte{0, 0}                 // no path, no signature, and whatever
	return []seedInput{
		{"ratchet tree", appendOpaque(nil, slices.Concat(make([]byte, n&^1), last))},
		{"ratchet tree", many(0)},
		{"ratchet tree", many(1, nodeTypeLeaf)},
		{"parent node", slices.Concat([]byte{0, 0}, many(0, 0, 0, 1))},
		{"update path", slices.Concat(leaf, many(0, 0))},
		{"update path", slices.Concat(leaf, appendOpaque(nil, slices.Concat([]byte{0}, many(0, 0))))},
		{"commit", slices.Concat(many(proposalByValue, 0, byte(ProposalGroupContextExtensions), 0), tail)},
		{"commit", slices.Concat(many(proposalByValue, 0, byte(ProposalExternalInit), 0), []byte{0})},
		{"commit", slices.Concat(many(proposalByValue, 0, byte(ProposalPSK), byte(PSKExternal), 0, 0), []byte{0})},
		{"commit", slices.Concat(many(proposalByValue, 0, byte(ProposalReInit), 0, 0, 0, 0, 0, 0), []byte{0})},
		{"commit", slices.Concat(many(slices.Concat([]byte{proposalByRef, hashSize}, make([]byte, hashSize))...), []byte{0})},
		{"message", inMessage(WireFormatPublicMessage, public(ContentCommit), many(proposalByValue, 0, byte(ProposalExternalInit), 0), tail, tail)},
		{"message", inMessage(WireFormatGroupInfo, context, many(0x0a, 0x0a, 0))},
		{"message", inMessage(WireFormatWelcome, []byte{0, 1}, many(slices.Concat([]byte{hashSize}, make([]byte, hashSize+2))...), []byte{0})},
		{"message", inMessage(WireFormatPrivateMessage, []byte{0}, make([]byte, 8), []byte{1, 0, 0}, many(0))},
		{"encrypted group secrets", slices.Concat([]byte{hashSize}, make([]byte, hashSize), many(0))},
		{"extensions", many(0x0a, 0x0a, 0)},
		{"extensions", appendOpaque(nil, distinct)},
		{"group context", slices.Concat(context, appendOpaque(nil, distinct))},
		{"reinit", slices.Concat(make([]byte, 5), appendOpaque(nil, distinct))},
		{"capabilities", slices.Concat([]byte{0, 0, 0, 0}, many(0, 1))},
		{"credential", slices.Concat([]byte{0, byte(CredentialX509)}, many(0))},
		{"group secrets", slices.Concat([]byte{0, 0}, many(byte(PSKExternal), 0, 0))},
		{"group secrets", slices.Concat([]byte{0, 0}, many(slices.Concat([]byte{byte(PSKResumption), 1, 0}, make([]byte, 9))...))},
		{"required_capabilities", slices.Concat([]byte{0}, many(0, 1), []byte{0})},
		{"external_senders", many(0, 0, byte(CredentialBasic), 0)},
		{"external_pub", many(0)},
		{"secret tree", slices.Concat([]byte{0, 1, 0, 0}, appendOpaque(nil, nodes), []byte{0})},
		{"secret tree", slices.Concat([]byte{0, 1, 0, 0}, []byte{0}, appendOpaque(nil, usedUp))},
		{"past epoch", slices.Concat(make([]byte, 8), []byte{0, 0, 0}, []byte{0, 1, 0, 0, 0, 0}, appendOpaque(nil, replaced))},
		{"path keys", slices.Concat([]byte{0}, appendOpaque(nil, replaced))},
	}
}

// Whoever sends a message must not cost its receivers much more than it cost him.
func TestBombsStayInBound(t *testing.T) {
	// Not parallel: it measures what is allocated.
	makeSaved(t)
	sizes := []int{300, 5000, 200_000}
	accepted := 0
	for _, n := range sizes {
		for _, s := range bombs(t, n) {
			if decoderNamed(t, s.decoder).check(t, s.b) {
				accepted++
			}
		}
	}
	if accepted < 10*len(sizes) {
		t.Errorf("%d bombs are well-formed: they are meant to go off", accepted)
	}
}
