package wire

import (
	"testing"

	"capnproto.org/go/capnp/v3"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/frame"
)

var everyNotice = map[string]Notice{
	"device-added":    {Kind: NoticeDeviceAdded, AccountID: alice, DeviceID: alicePhone},
	"device-revoked":  {Kind: NoticeDeviceRevoked, AccountID: alice, DeviceID: alicePhone},
	"account-deleted": {Kind: NoticeAccountDeleted, AccountID: alice},
	"root-key-reset":  {Kind: NoticeRootKeyReset, AccountID: alice},
	"contact-request": {Kind: NoticeContactRequested, AccountID: alice},
	"contact-accept":  {Kind: NoticeContactAccepted, AccountID: alice},
}

func TestNoticeRoundTrip(t *testing.T) {
	t.Parallel()
	for name, want := range everyNotice {
		got, err := UnmarshalNotice(noticeFrame(want))
		if err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", name, got, err, want)
		}
	}
	if n := len(members(func(n uint16) schema.Notice_Which { return schema.Notice_Which(n) })); n != len(everyNotice) {
		t.Errorf("the schema has %d kinds of notice, %d are tested", n, len(everyNotice))
	}
	if _, err := MarshalNotice(Notice{Kind: 99, AccountID: alice}); !HasCode(err, CodeInvalidArgument) {
		t.Errorf("a notice of no kind: %v", err)
	}
}

func TestNoticeRefused(t *testing.T) {
	t.Parallel()
	build := func(fill func(schema.Notice) error) []byte {
		b, err := frame.Build(64, func(seg *capnp.Segment) error {
			n, err := schema.NewRootNotice(seg)
			if err != nil {
				return err
			}
			return fill(n)
		})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := noticeFrame(everyNotice["device-added"])
	for name, c := range map[string]struct {
		b    []byte
		code Code
	}{
		"nothing":        {nil, CodeMalformed},
		"truncated":      {good[:len(good)-8], CodeMalformed},
		"no root":        {make([]byte, 8), CodeMalformed},
		"no kind":        {build(func(schema.Notice) error { return nil }), CodeUnsupportedVersion},
		"a kind to come": {build(func(n schema.Notice) error { capnp.Struct(n).SetUint16(0, 9); return nil }), CodeUnsupportedVersion},
		"no device": {build(func(n schema.Notice) error {
			d, err := n.NewDeviceAdded()
			return first(err, d.SetAccountId(alice[:]))
		}), CodeInvalidArgument},
		"a short account": {build(func(n schema.Notice) error {
			a, err := n.NewAccountDeleted()
			return first(err, a.SetAccountId(alice[:15]))
		}), CodeInvalidArgument},
	} {
		if _, err := UnmarshalNotice(c.b); !HasCode(err, c.code) {
			t.Errorf("%s: %v, want %v", name, err, c.code)
		}
	}
}

func FuzzNotice(f *testing.F) {
	for _, n := range everyNotice {
		f.Add(noticeFrame(n))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := UnmarshalNotice(b)
		if err != nil {
			return
		}
		if again, err := UnmarshalNotice(noticeFrame(n)); err != nil || again != n {
			t.Errorf("%v became %v, %v", n, again, err)
		}
	})
}
