package wire

import (
	"time"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/ids"
)

// UploadKeyPackagesRequest stores KeyPackages of the calling device, all or none.
type UploadKeyPackagesRequest struct {
	OneTime    [][]byte
	LastResort []byte // Empty: keep what is there.
}

// Method implements Request.
func (*UploadKeyPackagesRequest) Method() string { return "uploadKeyPackages" }
func (r *UploadKeyPackagesRequest) sizeHint() int {
	n := len(r.LastResort)
	for _, p := range r.OneTime {
		n += len(p) + 16
	}
	return n
}

func (r *UploadKeyPackagesRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewUploadKeyPackages, func(s schema.UploadKeyPackagesRequest) error {
		list, err := s.NewOneTime(int32(len(r.OneTime))) //nolint:gosec // at most 100.
		if err != nil {
			return err
		}
		for i, p := range r.OneTime {
			if err := list.Set(i, p); err != nil {
				return err
			}
		}
		return s.SetLastResort(r.LastResort)
	})
}

func decodeUploadKeyPackagesRequest(s schema.UploadKeyPackagesRequest) (*UploadKeyPackagesRequest, error) {
	var d decoder
	r := &UploadKeyPackagesRequest{LastResort: d.bytes("lastResort", 0, MaxKeyPackage)(s.LastResort())}
	list, err := s.OneTime()
	if err != nil {
		return nil, err
	}
	for i := range d.count("oneTime", list.Len(), MaxKeyPackages) {
		r.OneTime = append(r.OneTime, d.bytes("oneTime", 1, MaxKeyPackage)(list.At(i)))
	}
	return result(&d, r)
}

// KeyPackageStatusRequest asks what the calling device has left.
type KeyPackageStatusRequest struct{}

// Method implements Request.
func (*KeyPackageStatusRequest) Method() string { return "keyPackageStatus" }
func (*KeyPackageStatusRequest) sizeHint() int  { return 0 }
func (*KeyPackageStatusRequest) encodeRequest(q schema.Request) error {
	q.SetKeyPackageStatus()
	return nil
}

// KeyPackageStatus is what a device has left. It answers an upload too.
type KeyPackageStatus struct {
	OneTime             uint16
	LastResortExpiresAt time.Time // Zero: there is none.
}

func (*KeyPackageStatus) sizeHint() int { return 0 }

func (r *KeyPackageStatus) encodeResponse(p schema.Response) error {
	return fill(p.NewKeyPackageStatus, r.encode)
}

func (r *KeyPackageStatus) encode(s schema.KeyPackageStatus) error {
	s.SetOneTime(r.OneTime)
	s.SetLastResortExpiresAt(millis(r.LastResortExpiresAt))
	return nil
}

func decodeKeyPackageStatus(s schema.KeyPackageStatus) (*KeyPackageStatus, error) {
	return &KeyPackageStatus{OneTime: s.OneTime(), LastResortExpiresAt: moment(s.LastResortExpiresAt())}, nil
}

// ClaimKeyPackagesRequest takes one KeyPackage of every device of an account.
type ClaimKeyPackagesRequest struct{ RequestID, AccountID ids.ID }

// Method implements Request.
func (*ClaimKeyPackagesRequest) Method() string { return "claimKeyPackages" }
func (*ClaimKeyPackagesRequest) sizeHint() int  { return 0 }

func (r *ClaimKeyPackagesRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewClaimKeyPackages, func(s schema.ClaimKeyPackagesRequest) error {
		return first(s.SetRequestId(r.RequestID[:]), s.SetAccountId(r.AccountID[:]))
	})
}

func decodeClaimKeyPackagesRequest(s schema.ClaimKeyPackagesRequest) (*ClaimKeyPackagesRequest, error) {
	var d decoder
	return result(&d, &ClaimKeyPackagesRequest{RequestID: d.id("requestId")(s.RequestId()), AccountID: d.id("accountId")(s.AccountId())})
}

// ClaimKeyPackagesResponse answers ClaimKeyPackagesRequest.
type ClaimKeyPackagesResponse struct{ Packages []ClaimedKeyPackage }

// ClaimedKeyPackage is one device's KeyPackage.
type ClaimedKeyPackage struct {
	DeviceID   ids.ID
	KeyPackage []byte
	LastResort bool
}

func (r *ClaimKeyPackagesResponse) sizeHint() int {
	n := 0
	for _, p := range r.Packages {
		n += len(p.KeyPackage) + 64
	}
	return n
}

func (r *ClaimKeyPackagesResponse) encodeResponse(p schema.Response) error {
	return fill(p.NewClaimKeyPackages, func(s schema.ClaimKeyPackagesResponse) error {
		list, err := s.NewPackages(int32(len(r.Packages))) //nolint:gosec // at most 64.
		if err != nil {
			return err
		}
		for i, p := range r.Packages {
			e := list.At(i)
			e.SetLastResort(p.LastResort)
			if err := first(e.SetDeviceId(p.DeviceID[:]), e.SetKeyPackage(p.KeyPackage)); err != nil {
				return err
			}
		}
		return nil
	})
}

func decodeClaimKeyPackagesResponse(s schema.ClaimKeyPackagesResponse) (*ClaimKeyPackagesResponse, error) {
	var d decoder
	list, err := s.Packages()
	if err != nil {
		return nil, err
	}
	r := &ClaimKeyPackagesResponse{}
	for i := range d.count("packages", list.Len(), MaxDevices) {
		e := list.At(i)
		r.Packages = append(r.Packages, ClaimedKeyPackage{DeviceID: d.id("deviceId")(e.DeviceId()),
			KeyPackage: d.bytes("keyPackage", 1, MaxKeyPackage)(e.KeyPackage()), LastResort: e.LastResort()})
	}
	return result(&d, r)
}
