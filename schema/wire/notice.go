package wire

import (
	"capnproto.org/go/capnp/v3"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/ids"
)

// NoticeKind says what a Notice tells.
type NoticeKind = schema.Notice_Which

// The kinds, by the names of the schema.
const (
	NoticeDeviceAdded    = schema.Notice_Which_deviceAdded
	NoticeDeviceRevoked  = schema.Notice_Which_deviceRevoked
	NoticeAccountDeleted = schema.Notice_Which_accountDeleted
	NoticeRootKeyReset   = schema.Notice_Which_rootKeyReset

	NoticeContactRequested = schema.Notice_Which_contactRequested
	NoticeContactAccepted  = schema.Notice_Which_contactAccepted
)

// Notice is what the cell tells a device in its inbox: the payload of a delivery of KindNotice. Nobody but the cell
// vouches for it.
type Notice struct {
	Kind      NoticeKind
	AccountID ids.ID
	DeviceID  ids.ID // Zero for what concerns an account.
}

// MarshalNotice returns n as a frame.
func MarshalNotice(n Notice) ([]byte, error) {
	return frame.Build(96, func(seg *capnp.Segment) error {
		s, err := schema.NewRootNotice(seg)
		if err != nil {
			return err
		}
		return n.encode(s)
	})
}

func (n Notice) encode(s schema.Notice) error {
	device := func(t schema.DeviceNotice) error {
		return first(t.SetAccountId(n.AccountID[:]), t.SetDeviceId(n.DeviceID[:]))
	}
	account := func(t schema.AccountNotice) error { return t.SetAccountId(n.AccountID[:]) }
	switch n.Kind {
	case NoticeDeviceAdded:
		return fill(s.NewDeviceAdded, device)
	case NoticeDeviceRevoked:
		return fill(s.NewDeviceRevoked, device)
	case NoticeAccountDeleted:
		return fill(s.NewAccountDeleted, account)
	case NoticeRootKeyReset:
		return fill(s.NewRootKeyReset, account)
	case NoticeContactRequested:
		return fill(s.NewContactRequested, account)
	case NoticeContactAccepted:
		return fill(s.NewContactAccepted, account)
	}
	return Errorf(CodeInvalidArgument, "a notice of kind %d cannot be written", n.Kind)
}

// UnmarshalNotice reads what MarshalNotice wrote. Every error is an *Error: a newer kind is CodeUnsupportedVersion.
func UnmarshalNotice(b []byte) (Notice, error) {
	msg, err := frame.Open(b)
	if err != nil {
		return Notice{}, Errorf(CodeMalformed, "%v", err)
	}
	s, err := schema.ReadRootNotice(msg)
	if err != nil {
		return Notice{}, Errorf(CodeMalformed, "%v", err)
	}
	n, err := decodeNotice(s)
	return n, asError(err)
}

func decodeNotice(s schema.Notice) (Notice, error) {
	n := Notice{Kind: s.Which()}
	switch n.Kind {
	case NoticeDeviceAdded:
		return n.ofDevice(s.DeviceAdded())
	case NoticeDeviceRevoked:
		return n.ofDevice(s.DeviceRevoked())
	case NoticeAccountDeleted:
		return n.ofAccount(s.AccountDeleted())
	case NoticeRootKeyReset:
		return n.ofAccount(s.RootKeyReset())
	case NoticeContactRequested:
		return n.ofAccount(s.ContactRequested())
	case NoticeContactAccepted:
		return n.ofAccount(s.ContactAccepted())
	}
	return Notice{}, Errorf(CodeUnsupportedVersion, "a notice of kind %d needs a newer client", n.Kind)
}

func (n Notice) ofDevice(s schema.DeviceNotice, err error) (Notice, error) {
	if err != nil {
		return Notice{}, err
	}
	var d decoder
	n.AccountID, n.DeviceID = d.id("accountId")(s.AccountId()), d.id("deviceId")(s.DeviceId())
	return result(&d, n)
}

func (n Notice) ofAccount(s schema.AccountNotice, err error) (Notice, error) {
	if err != nil {
		return Notice{}, err
	}
	var d decoder
	n.AccountID = d.id("accountId")(s.AccountId())
	return result(&d, n)
}
