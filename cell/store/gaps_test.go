package store

import (
	"slices"
	"testing"

	"quicproquo.dev/schema/ids"
)

// A device that comes back before it has read up to its removal keeps its place, and knows what it does not read; one that has
// begins where it comes back. So many times, and no more.
func TestADeviceThatComesBackKeepsItsPlace(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, devices := team(t, s, 3)
	admin, behind, reader := devices[0], devices[1], devices[2]
	epoch := uint64(1)
	commit := func(adds, removes []ids.ID) uint64 {
		t.Helper()
		c := change(t, s, channel, admin, adds, removes)
		must(t, s.StoreChange(t.Context(), c))
		epoch++
		return c.Message.Seq
	}
	both := []ids.ID{behind.ID, reader.ID}
	want := func(d Device, acked uint64, gaps ...uint64) {
		t.Helper()
		for how, c := range map[string]Cursor{"one": cursorOf(t, s, d.ID, channel), "of all": cursorAmong(t, s, d.ID, channel)} {
			if c.AckedSeq != acked || c.Until != 0 || !slices.Equal(c.Gaps, gaps) {
				t.Errorf("%s: %+v, want %d and %v", how, c, acked, gaps)
			}
		}
	}
	for range 5 {
		sent(t, s, epochMessage(channel, admin, epoch))
	}
	must(t, s.Acknowledge(t.Context(), []Ack{{behind.ID, channel, 2}, {reader.ID, channel, 5}}))
	removed := commit(nil, both) // 6.
	must(t, s.Acknowledge(t.Context(), []Ack{{reader.ID, channel, removed}}))
	sent(t, s, epochMessage(channel, admin, epoch))
	back := commit(both, nil) // 8.
	want(behind, 2, removed, back)
	want(reader, back)
	if a := sent(t, s, epochMessage(channel, behind, epoch)); a.Err != nil {
		t.Errorf("it may not write: %v", a.Err)
	}

	// Once more, without having read anything meanwhile.
	again := commit(nil, both)
	afterwards := commit(both, nil)
	want(behind, 2, removed, back, again, afterwards)
	want(reader, back, again, afterwards)
	// All read: a fresh start.
	must(t, s.Acknowledge(t.Context(), []Ack{{behind.ID, channel, afterwards}, {reader.ID, channel, afterwards}}))
	removed = commit(nil, both)
	must(t, s.Acknowledge(t.Context(), []Ack{{behind.ID, channel, removed}}))
	back = commit(both, nil)
	want(behind, back)
	want(reader, afterwards, again, afterwards, removed, back)

	_, err := s.pool.Exec(t.Context(), `UPDATE cursors SET gaps = (SELECT array_agg(0::bigint) FROM generate_series(1, $2)) WHERE device_id = $1 AND channel_id = $3`, reader.ID, 2*maxGaps, channel)
	must(t, err)
	commit(nil, both)
	back = commit(both, nil)
	want(reader, back)
}

func cursorOf(t *testing.T, s *Store, device, channel ids.ID) Cursor {
	t.Helper()
	c, err := s.CursorOf(t.Context(), device, channel)
	must(t, err)
	return c
}

func cursorAmong(t *testing.T, s *Store, device, channel ids.ID) Cursor {
	t.Helper()
	list, err := s.Cursors(t.Context(), device)
	must(t, err)
	i := slices.IndexFunc(list, func(c Cursor) bool { return c.ChannelID == channel })
	if i < 0 {
		t.Fatalf("device %s does not read channel %s", device, channel)
	}
	return list[i]
}
