package server_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// contentType finds the content type in a PrivateMessage: MLSMessage's version and wire format, group id, epoch, content type (RFC
// 9420 §6, §6.3).
func contentType(t *testing.T, payload []byte, channel ids.ID, epoch uint64) int {
	t.Helper()
	header := binary.BigEndian.AppendUint64(ids.GroupID(channel, 1), epoch)
	at := bytes.Index(payload, header)
	if at < 0 || payload[at+len(header)] != 1 {
		t.Fatal("that is no PrivateMessage of an application")
	}
	return at + len(header)
}

// Handshake messages travel as PublicMessage by commit and propose, application messages as PrivateMessage by enqueue: none as the
// other, and none by another's call.
func TestWireFormats(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	alice, bob := c.Signup(t, "alice"), c.Signup(t, "bob")
	a := celltest.Group(t, alice, bob)[0]
	text := a.Text("hello")
	proposal := a.Propose(mls.ProposeOptions{Update: true})
	commit, _ := a.Change(mls.CommitOptions{})
	typed := func(n byte) []byte {
		b := bytes.Clone(text.Payload)
		b[contentType(t, b, a.Channel, 1)] = n
		return b
	}
	enqueue := func(id ids.ID, payload []byte) wire.Request {
		return &wire.EnqueueRequest{ChannelID: a.Channel, Generation: 1, DeliveryID: id, Payload: payload}
	}
	for what, r := range map[string]wire.Request{
		"a Commit by enqueue":             enqueue(commit.DeliveryID, commit.Commit),
		"a proposal by enqueue":           enqueue(proposal.DeliveryID, proposal.Proposal),
		"a private proposal by enqueue":   enqueue(text.DeliveryID, typed(2)),
		"a private Commit by enqueue":     enqueue(text.DeliveryID, typed(3)),
		"no content type by enqueue":      enqueue(text.DeliveryID, typed(0)),
		"a GroupInfo by enqueue":          enqueue(commit.DeliveryID, commit.GroupInfo),
		"a private Commit by commit":      &wire.CommitRequest{ChannelID: a.Channel, Generation: 1, Epoch: 1, DeliveryID: text.DeliveryID, Commit: typed(3), GroupInfo: commit.GroupInfo},
		"a proposal by commit":            &wire.CommitRequest{ChannelID: a.Channel, Generation: 1, Epoch: 1, DeliveryID: proposal.DeliveryID, Commit: proposal.Proposal, GroupInfo: commit.GroupInfo},
		"a private proposal by propose":   &wire.ProposeRequest{ChannelID: a.Channel, Generation: 1, DeliveryID: text.DeliveryID, Proposal: typed(2)},
		"an application message, propose": &wire.ProposeRequest{ChannelID: a.Channel, Generation: 1, DeliveryID: text.DeliveryID, Proposal: text.Payload},
	} {
		if _, err := alice.Conn.Call(r); !wire.HasCode(err, wire.CodeInvalidMessage) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if x := details(t, alice, a); x.Channel.LastSeq != 0 || x.Channel.Epoch != 1 {
		t.Fatalf("something was taken: %+v", x.Channel)
	}
	celltest.Must[*wire.EnqueueResponse](alice.Conn, text)
}
