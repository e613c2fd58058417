package peer

import (
	"bytes"
	"testing"

	"quicproquo.dev/mls"
	"quicproquo.dev/schema/ids"
)

// What is made up reads as the message it is said to be, whatever its length.
func TestAnApplicationMessageHasTheHeaderOfOne(t *testing.T) {
	t.Parallel()
	channel, delivery := ids.New(), ids.New()
	for _, size := range []int{0, 1, 63, 64, 16383, 16384, 100_000} {
		b := Application(channel, 3, 7, delivery, make([]byte, size))
		m, err := mls.ParseMessage(b)
		if err != nil || m.PrivateMessage == nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		p := m.PrivateMessage
		if !bytes.Equal(p.GroupID, ids.GroupID(channel, 3)) || p.Epoch != 7 || p.ContentType != mls.ContentApplication || !bytes.Equal(p.AuthenticatedData, delivery[:]) {
			t.Errorf("%d bytes: %+v", size, p)
		}
		if again, err := m.Marshal(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%d bytes: it is written otherwise", size)
		}
	}
}
