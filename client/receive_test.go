package client

import (
	"bytes"
	"testing"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

func TestReceive(t *testing.T) {
	t.Parallel()
	p := makePair(t).join()
	one, two := p.send("one"), p.send("two")
	out := p.receive(1, one, two)
	if out.lastSeq != 2 || !out.lines || len(out.waiting) > 0 {
		t.Errorf("outcome %+v", out)
	}
	out = p.receive(1, one, two, p.send("three")) // The first two come again: they were not acknowledged.
	if out.lastSeq != 3 {
		t.Errorf("outcome %+v", out)
	}
	rec := p.record()
	p.expect(rec, "one", "two", "three")
	l := rec.Unread[0]
	if l.Seq != 1 || l.From != "alice" || l.Account != p.a.AccountID || l.Device != p.alice.self.DeviceID ||
		l.DeliveryID != one.DeliveryID || l.SentAt.UnixMilli() != 5 {
		t.Errorf("line %+v", l)
	}
}

// TestNothingIsDroppedInSilence: whatever is wrong with a message, it is reported, and the next one is read.
func TestNothingIsDroppedInSilence(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		spoil func(*pair, *wire.Delivery)
		want  string
	}{
		"flipped":       {func(_ *pair, d *wire.Delivery) { d.Payload[len(d.Payload)-1] ^= 1 }, failUndecryptable},
		"cut":           {func(_ *pair, d *wire.Delivery) { d.Payload = d.Payload[:50] }, failUndecryptable},
		"empty":         {func(_ *pair, d *wire.Delivery) { d.Payload = nil }, failUndecryptable},
		"no message":    {func(p *pair, d *wire.Delivery) { d.Payload = p.made.Welcome }, failUndecryptable},
		"other id":      {func(_ *pair, d *wire.Delivery) { d.DeliveryID = ids.New() }, failUntrusted},
		"other account": {func(p *pair, d *wire.Delivery) { d.SenderAccountID = p.b.AccountID }, failUntrusted},
		"other device":  {func(_ *pair, d *wire.Delivery) { d.SenderDeviceID = ids.New() }, failUntrusted},
		"no content":    {func(p *pair, d *wire.Delivery) { *d = *p.sendContent([]byte("no frame")); p.seq--; d.Seq = 1 }, failContent},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := makePair(t).join()
			bad := p.send("never shown")
			bad.Payload = bytes.Clone(bad.Payload)
			tc.spoil(p, bad)
			p.receive(1, bad, p.send("good"))
			p.expect(p.record(), "["+tc.want+"]", "good")
			if l := p.record().Unread[0]; l.Seq != 1 || l.Text != "" {
				t.Errorf("line %+v", l)
			}
		})
	}
}

// TestReplay: the cell hands out a message a second time under another sequence.
func TestReplay(t *testing.T) {
	t.Parallel()
	p := makePair(t).join()
	one := p.send("one")
	again := *one
	again.Seq = 2
	p.receive(1, one, &again)
	p.expect(p.record(), "one", "["+failUndecryptable+"]")
}

// TestRestoredCell: sequences start over. What was handled before is passed over, what is new is shown.
func TestRestoredCell(t *testing.T) {
	t.Parallel()
	p := makePair(t).join()
	one, two := p.send("one"), p.send("two")
	p.receive(1, one, two)
	three := p.send("three")
	three.Seq = 2 // The cell lost the second message and gave its sequence away again.
	p.receive(2, one, three)
	p.expect(p.record(), "one", "two", "three")
}

func TestOwnMessagesLeaveTheOutbox(t *testing.T) {
	t.Parallel()
	p := makePair(t).join()
	id := ids.New()
	err := update(t.Context(), p.bob.store, channelName(p.channel), func(rec *channelRecord) (bool, error) {
		rec.Outbox = []outgoing{{DeliveryID: ids.New()}, {DeliveryID: id}}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	p.receive(1, &wire.Delivery{ChannelID: p.channel, Seq: 1, Kind: wire.KindOwn, Generation: 1, DeliveryID: id})
	if rec := p.record(); len(rec.Outbox) != 1 || rec.Outbox[0].DeliveryID == id || rec.LastSeq != 1 {
		t.Errorf("record %+v", rec)
	}
}

// TestMessagesWaitForTheirGroup until the Welcome has come; when it does not, they are reported.
func TestMessagesWaitForTheirGroup(t *testing.T) {
	t.Parallel()
	p := makePair(t)
	one := p.send("one")
	if out := p.receive(1, one); len(out.waiting) != 1 || out.lastSeq != 0 {
		t.Fatalf("without a group: %+v", out)
	}
	p.join()
	if out := p.receive(1, one); len(out.waiting) != 0 || out.lastSeq != 1 {
		t.Fatalf("with a group: %+v", out)
	}
	p.expect(p.record(), "one")

	q := makePair(t)
	if out, err := q.bob.receive(t.Context(), q.channel, 1, []*wire.Delivery{q.send("one")}, true); err != nil || out.lastSeq != 1 {
		t.Fatalf("giving up: %+v, %v", out, err)
	}
	q.expect(q.record(), "["+failNoGroup+"]")
	q.join()
	q.receive(1, q.send("two"))
	q.expect(q.record(), "["+failNoGroup+"]", "two")
}
