package wire

import (
	"time"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
)

// ListDevicesRequest asks for the devices of the caller's account. It is answered by a DeviceList.
type ListDevicesRequest struct{}

// Method implements Request.
func (*ListDevicesRequest) Method() string { return "listDevices" }
func (*ListDevicesRequest) sizeHint() int  { return 0 }

func (*ListDevicesRequest) encodeRequest(q schema.Request) error {
	q.SetListDevices()
	return nil
}

// DeviceList is the devices of an account that are in use, in the order of their addition.
type DeviceList struct{ Devices []Device }

// Device is one device as its own account, or an admin, sees it.
type Device struct {
	DeviceID    ids.ID
	Name        string
	Certificate []byte // devicecert.Certificate.
	AddedAt     time.Time
	LastSeenAt  time.Time // To the day; zero: never.
}

type devices []Device

func (list devices) sizeHint() int {
	n := 0
	for _, d := range list {
		n += 96 + len(d.Name) + len(d.Certificate)
	}
	return n
}

func (list devices) encode(create func(int32) (schema.Device_List, error)) error {
	l, err := create(int32(len(list))) //nolint:gosec // at most 64.
	if err != nil {
		return err
	}
	for i, d := range list {
		s := l.At(i)
		s.SetAddedAt(d.AddedAt.UnixMilli())
		s.SetLastSeenAt(millis(d.LastSeenAt))
		if err := first(s.SetDeviceId(d.DeviceID[:]), s.SetName(d.Name), s.SetCertificate(d.Certificate)); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) devices(l schema.Device_List, err error) []Device {
	if err != nil {
		d.fail(err)
		return nil
	}
	var list []Device
	for i := range d.count("devices", l.Len(), MaxDevices) {
		s := l.At(i)
		list = append(list, Device{DeviceID: d.id("deviceId")(s.DeviceId()), Name: d.text("name", 0, MaxDeviceName)(s.Name()),
			Certificate: d.bytes("certificate", devicecert.Size, devicecert.Size)(s.Certificate()),
			AddedAt:     time.UnixMilli(s.AddedAt()), LastSeenAt: moment(s.LastSeenAt())})
	}
	return list
}

func (r *DeviceList) sizeHint() int { return devices(r.Devices).sizeHint() }

func (r *DeviceList) encodeResponse(p schema.Response) error {
	return fill(p.NewDeviceList, func(s schema.DeviceList) error { return devices(r.Devices).encode(s.NewDevices) })
}

func decodeDeviceList(s schema.DeviceList) (*DeviceList, error) {
	var d decoder
	return result(&d, &DeviceList{d.devices(s.Devices())})
}

// RenameDeviceRequest gives a device of the caller's account another name. It is answered by Done.
type RenameDeviceRequest struct {
	DeviceID ids.ID
	Name     string
}

// Method implements Request.
func (*RenameDeviceRequest) Method() string  { return "renameDevice" }
func (r *RenameDeviceRequest) sizeHint() int { return len(r.Name) }

func (r *RenameDeviceRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewRenameDevice, func(s schema.RenameDeviceRequest) error {
		return first(s.SetDeviceId(r.DeviceID[:]), s.SetName(r.Name))
	})
}

func decodeRenameDeviceRequest(s schema.RenameDeviceRequest) (*RenameDeviceRequest, error) {
	var d decoder
	return result(&d, &RenameDeviceRequest{d.id("deviceId")(s.DeviceId()), d.text("name", 1, MaxDeviceName)(s.Name())})
}

// RevokeDeviceRequest ends a device of the caller's account for good. It is answered by Done.
type RevokeDeviceRequest struct{ DeviceID ids.ID }

// Method implements Request.
func (*RevokeDeviceRequest) Method() string { return "revokeDevice" }
func (*RevokeDeviceRequest) sizeHint() int  { return 0 }

func (r *RevokeDeviceRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewRevokeDevice, func(s schema.RevokeDeviceRequest) error { return s.SetDeviceId(r.DeviceID[:]) })
}

func decodeRevokeDeviceRequest(s schema.RevokeDeviceRequest) (*RevokeDeviceRequest, error) {
	var d decoder
	return result(&d, &RevokeDeviceRequest{d.id("deviceId")(s.DeviceId())})
}

// StartDeviceLinkRequest offers a new device to whoever has its code. It is answered by a DeviceLink.
type StartDeviceLinkRequest struct {
	LinkID ids.ID
	Offer  []byte
}

// Method implements Request.
func (*StartDeviceLinkRequest) Method() string  { return "startDeviceLink" }
func (r *StartDeviceLinkRequest) sizeHint() int { return len(r.Offer) }

func (r *StartDeviceLinkRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewStartDeviceLink, func(s schema.StartDeviceLinkRequest) error {
		return first(s.SetLinkId(r.LinkID[:]), s.SetOffer(r.Offer))
	})
}

func decodeStartDeviceLinkRequest(s schema.StartDeviceLinkRequest) (*StartDeviceLinkRequest, error) {
	var d decoder
	return result(&d, &StartDeviceLinkRequest{d.id("linkId")(s.LinkId()), d.bytes("offer", 1, MaxLinkOffer)(s.Offer())})
}

// GetDeviceLinkRequest asks how far a link is. It is answered by a DeviceLink.
type GetDeviceLinkRequest struct{ LinkID ids.ID }

// Method implements Request.
func (*GetDeviceLinkRequest) Method() string { return "getDeviceLink" }
func (*GetDeviceLinkRequest) sizeHint() int  { return 0 }

func (r *GetDeviceLinkRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewGetDeviceLink, func(s schema.GetDeviceLinkRequest) error { return s.SetLinkId(r.LinkID[:]) })
}

func decodeGetDeviceLinkRequest(s schema.GetDeviceLinkRequest) (*GetDeviceLinkRequest, error) {
	var d decoder
	return result(&d, &GetDeviceLinkRequest{d.id("linkId")(s.LinkId())})
}

// DeviceLink is a new device on its way into an account. Without Approval nobody has approved it yet.
type DeviceLink struct {
	Offer, Approval []byte
	Certificate     []byte // devicecert.Certificate, with the approval.
	ExpiresAt       time.Time
}

func (r *DeviceLink) sizeHint() int { return len(r.Offer) + len(r.Approval) + len(r.Certificate) }

func (r *DeviceLink) encodeResponse(p schema.Response) error {
	return fill(p.NewDeviceLink, func(s schema.DeviceLink) error {
		s.SetExpiresAt(r.ExpiresAt.UnixMilli())
		return first(s.SetOffer(r.Offer), s.SetApproval(r.Approval), s.SetCertificate(r.Certificate))
	})
}

func decodeDeviceLink(s schema.DeviceLink) (*DeviceLink, error) {
	var d decoder
	return result(&d, &DeviceLink{Offer: d.bytes("offer", 1, MaxLinkOffer)(s.Offer()), Approval: d.bytes("approval", 0, MaxLinkApproval)(s.Approval()),
		Certificate: d.optional("certificate", devicecert.Size)(s.Certificate()), ExpiresAt: time.UnixMilli(s.ExpiresAt())})
}

// ApproveDeviceLinkRequest takes a new device into the caller's account. It is answered by Done.
type ApproveDeviceLinkRequest struct {
	LinkID      ids.ID
	Certificate []byte // devicecert.Certificate of the new device.
	DeviceName  string
	Approval    []byte
}

// Method implements Request.
func (*ApproveDeviceLinkRequest) Method() string { return "approveDeviceLink" }
func (r *ApproveDeviceLinkRequest) sizeHint() int {
	return len(r.Certificate) + len(r.DeviceName) + len(r.Approval)
}

func (r *ApproveDeviceLinkRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewApproveDeviceLink, func(s schema.ApproveDeviceLinkRequest) error {
		return first(s.SetLinkId(r.LinkID[:]), s.SetCertificate(r.Certificate), s.SetDeviceName(r.DeviceName), s.SetApproval(r.Approval))
	})
}

func decodeApproveDeviceLinkRequest(s schema.ApproveDeviceLinkRequest) (*ApproveDeviceLinkRequest, error) {
	var d decoder
	return result(&d, &ApproveDeviceLinkRequest{LinkID: d.id("linkId")(s.LinkId()),
		Certificate: d.bytes("certificate", devicecert.Size, devicecert.Size)(s.Certificate()),
		DeviceName:  d.text("deviceName", 0, MaxDeviceName)(s.DeviceName()), Approval: d.bytes("approval", 1, MaxLinkApproval)(s.Approval())})
}

// FinishDeviceLinkRequest starts the first session of a device that was approved. It is answered by a Session.
type FinishDeviceLinkRequest struct {
	LinkID ids.ID
	Proof  []byte // devicecert.Prove.
}

// Method implements Request.
func (*FinishDeviceLinkRequest) Method() string  { return "finishDeviceLink" }
func (r *FinishDeviceLinkRequest) sizeHint() int { return len(r.Proof) }

func (r *FinishDeviceLinkRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewFinishDeviceLink, func(s schema.FinishDeviceLinkRequest) error {
		return first(s.SetLinkId(r.LinkID[:]), s.SetProof(r.Proof))
	})
}

func decodeFinishDeviceLinkRequest(s schema.FinishDeviceLinkRequest) (*FinishDeviceLinkRequest, error) {
	var d decoder
	return result(&d, &FinishDeviceLinkRequest{d.id("linkId")(s.LinkId()), d.bytes("proof", proofSize, proofSize)(s.Proof())})
}
