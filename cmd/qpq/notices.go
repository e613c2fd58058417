package main

import (
	"fmt"
	"time"

	"quicproquo.dev/client"
	"quicproquo.dev/schema/ids"
)

// noticeJSON is a notice as --json prints it.
type noticeJSON struct {
	Notice     client.NoticeKind `json:"notice"`
	Account    ids.ID            `json:"account"`
	Name       string            `json:"name"`
	Own        bool              `json:"own"` // It is about one's own account.
	Device     *ids.ID           `json:"device,omitempty"`
	DeviceName string            `json:"deviceName,omitempty"`
	At         string            `json:"at"`
}

func (p *program) printNotice(m client.Message) error {
	object := noticeJSON{Notice: m.Notice.Kind, Account: m.Account, Name: m.From, Own: m.Notice.Own, DeviceName: m.Notice.DeviceName, At: m.AcceptedAt.UTC().Format(timeJSON)}
	if !m.Notice.Device.IsZero() {
		object.Device = &m.Notice.Device
	}
	return p.print(object, m.AcceptedAt.Local().Format(time.DateTime)+"  * "+sentence(m))
}

// sentence says what a notice tells.
func sentence(m client.Message) string {
	if m.Notice.Own {
		return ownSentence(m.Notice)
	}
	who := visible(m.From)
	switch m.Notice.Kind {
	case client.DeviceAdded:
		return fmt.Sprintf("%s added a device (%s)", who, short(m.Notice.Device))
	case client.DeviceRevoked:
		return fmt.Sprintf("%s revoked a device (%s)", who, short(m.Notice.Device))
	case client.AccountDeleted:
		return fmt.Sprintf("%s deleted the account", who)
	case client.RootKeyReset:
		return fmt.Sprintf("the cell says that %s started over with other keys", who)
	case client.ContactAsks:
		return fmt.Sprintf("%[1]s asks to write to you: qpq contacts accept %[1]s, or block", who)
	case client.ContactAccepts:
		return fmt.Sprintf("%s accepts to be written to; what waited is sent", who)
	}
	return fmt.Sprintf("the cell says something of %s that needs a newer program", who)
}

// ownSentence is sentence for what is about one's own account.
func ownSentence(n *client.Notice) string {
	device := short(n.Device)
	if n.DeviceName != "" {
		device = visible(n.DeviceName) + ", " + device
	}
	switch n.Kind {
	case client.DeviceAdded:
		return fmt.Sprintf("your account has a new device (%s); if it is not yours: qpq devices revoke %s, and qpq passwd", device, short(n.Device))
	case client.DeviceRevoked:
		return fmt.Sprintf("your device (%s) was revoked", device)
	case client.AccountDeleted:
		return "your account was deleted"
	}
	return "the cell says something of your account that needs a newer program"
}
