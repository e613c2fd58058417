package wire

import (
	"time"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/ids"
)

// AdminAuthenticateRequest makes the connection an admin's, by a token or by its TLS client certificate. It is answered
// by an AdminSession.
type AdminAuthenticateRequest struct{ Token []byte }

// Method implements Request.
func (*AdminAuthenticateRequest) Method() string  { return "adminAuthenticate" }
func (r *AdminAuthenticateRequest) sizeHint() int { return len(r.Token) }

func (r *AdminAuthenticateRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewAdminAuthenticate, func(s schema.AdminAuthenticateRequest) error { return s.SetToken(r.Token) })
}

func decodeAdminAuthenticateRequest(s schema.AdminAuthenticateRequest) (*AdminAuthenticateRequest, error) {
	var d decoder
	return result(&d, &AdminAuthenticateRequest{d.bytes("token", 0, MaxToken)(s.Token())})
}

// AdminRole is what an admin may do.
type AdminRole = schema.AdminRole

// The roles, by the names of the schema.
const (
	AdminRoleCellAdmin = schema.AdminRole_cellAdmin
	AdminRoleAuditor   = schema.AdminRole_auditor
)

// AdminSession says who the connection speaks for, until ExpiresAt; zero: until it ends.
type AdminSession struct {
	Name      string
	Role      AdminRole
	ExpiresAt time.Time
}

func (r *AdminSession) sizeHint() int { return len(r.Name) }

func (r *AdminSession) encodeResponse(p schema.Response) error {
	return fill(p.NewAdminSession, func(s schema.AdminSession) error {
		s.SetRole(r.Role)
		s.SetExpiresAt(millis(r.ExpiresAt))
		return s.SetName(r.Name)
	})
}

func decodeAdminSession(s schema.AdminSession) (*AdminSession, error) {
	var d decoder
	return result(&d, &AdminSession{d.text("name", 0, MaxName)(s.Name()), s.Role(), moment(s.ExpiresAt())})
}

// AdminInviteRequest mints invitations. It is answered by Codes.
type AdminInviteRequest struct {
	Count    uint16
	Lifetime time.Duration // Whole seconds on the wire.
}

// Method implements Request.
func (*AdminInviteRequest) Method() string { return "adminInvite" }
func (*AdminInviteRequest) sizeHint() int  { return 0 }

func (r *AdminInviteRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewAdminInvite, func(s schema.AdminInviteRequest) error {
		s.SetCount(r.Count)
		s.SetLifetimeSec(seconds(r.Lifetime))
		return nil
	})
}

func decodeAdminInviteRequest(s schema.AdminInviteRequest) (*AdminInviteRequest, error) {
	var d decoder
	if s.Count() < 1 || s.Count() > MaxInvitations {
		d.fail(Errorf(CodeInvalidArgument, "count is %d, it must be 1 to %d", s.Count(), MaxInvitations).With("field", "count"))
	}
	return result(&d, &AdminInviteRequest{s.Count(), time.Duration(s.LifetimeSec()) * time.Second})
}

// Codes are codes that were minted, as people type them.
type Codes struct {
	Codes     []string
	ExpiresAt time.Time
}

func (r *Codes) sizeHint() int { return (maxCode + 16) * len(r.Codes) }

func (r *Codes) encodeResponse(p schema.Response) error {
	return fill(p.NewCodes, func(s schema.Codes) error {
		s.SetExpiresAt(r.ExpiresAt.UnixMilli())
		l, err := s.NewCodes(int32(len(r.Codes))) //nolint:gosec // at most 100.
		if err != nil {
			return err
		}
		for i, c := range r.Codes {
			if err := l.Set(i, c); err != nil {
				return err
			}
		}
		return nil
	})
}

func decodeCodes(s schema.Codes) (*Codes, error) {
	var d decoder
	list, err := s.Codes()
	if err != nil {
		return nil, err
	}
	r := &Codes{ExpiresAt: time.UnixMilli(s.ExpiresAt())}
	for i := range d.count("codes", list.Len(), MaxInvitations) {
		r.Codes = append(r.Codes, d.text("codes", 1, maxCode)(list.At(i)))
	}
	return result(&d, r)
}

// AdminResetCodeRequest mints a code by which an account starts over. It is answered by Codes.
type AdminResetCodeRequest struct {
	Name     string
	Lifetime time.Duration // Whole seconds on the wire.
}

// Method implements Request.
func (*AdminResetCodeRequest) Method() string  { return "adminResetCode" }
func (r *AdminResetCodeRequest) sizeHint() int { return len(r.Name) }

func (r *AdminResetCodeRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewAdminResetCode, func(s schema.AdminResetCodeRequest) error {
		s.SetLifetimeSec(seconds(r.Lifetime))
		return s.SetName(r.Name)
	})
}

func decodeAdminResetCodeRequest(s schema.AdminResetCodeRequest) (*AdminResetCodeRequest, error) {
	var d decoder
	return result(&d, &AdminResetCodeRequest{d.text("name", 1, MaxName)(s.Name()), time.Duration(s.LifetimeSec()) * time.Second})
}

// AdminGetAccountRequest looks an account up, by name when Name is set, else by id. It is answered by an AdminAccount.
type AdminGetAccountRequest struct {
	Name      string
	AccountID ids.ID
}

// Method implements Request.
func (*AdminGetAccountRequest) Method() string  { return "adminGetAccount" }
func (r *AdminGetAccountRequest) sizeHint() int { return len(r.Name) }

func (r *AdminGetAccountRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewAdminGetAccount, func(s schema.AdminGetAccountRequest) error {
		if r.Name != "" {
			return s.SetName(r.Name)
		}
		return s.SetAccountId(r.AccountID[:])
	})
}

func decodeAdminGetAccountRequest(s schema.AdminGetAccountRequest) (*AdminGetAccountRequest, error) {
	var d decoder
	switch s.Which() {
	case schema.AdminGetAccountRequest_Which_name:
		return result(&d, &AdminGetAccountRequest{Name: d.text("name", 1, MaxName)(s.Name())})
	case schema.AdminGetAccountRequest_Which_accountId:
		return result(&d, &AdminGetAccountRequest{AccountID: d.id("accountId")(s.AccountId())})
	}
	return nil, Errorf(CodeInvalidArgument, "an account is looked up by name or accountId")
}

// AdminAccount is what an admin sees of an account.
type AdminAccount struct {
	AccountID ids.ID
	Name      string
	RootKey   []byte // Ed25519, 32 bytes.
	CreatedAt time.Time
	Disabled  bool
	Devices   []Device
}

func (r *AdminAccount) sizeHint() int {
	return len(r.Name) + len(r.RootKey) + devices(r.Devices).sizeHint()
}

func (r *AdminAccount) encodeResponse(p schema.Response) error {
	return fill(p.NewAdminAccount, func(s schema.AdminAccount) error {
		s.SetCreatedAt(r.CreatedAt.UnixMilli())
		s.SetDisabled(r.Disabled)
		return first(s.SetAccountId(r.AccountID[:]), s.SetName(r.Name), s.SetRootKey(r.RootKey), devices(r.Devices).encode(s.NewDevices))
	})
}

func decodeAdminAccount(s schema.AdminAccount) (*AdminAccount, error) {
	var d decoder
	return result(&d, &AdminAccount{AccountID: d.id("accountId")(s.AccountId()), Name: d.text("name", 0, MaxName)(s.Name()),
		RootKey: d.bytes("rootKey", 32, 32)(s.RootKey()), CreatedAt: time.UnixMilli(s.CreatedAt()), Disabled: s.Disabled(),
		Devices: d.devices(s.Devices())})
}

// AdminSetDisabledRequest shuts an account out, or lets it in again. It is answered by Done.
type AdminSetDisabledRequest struct {
	AccountID ids.ID
	Disabled  bool
}

// Method implements Request.
func (*AdminSetDisabledRequest) Method() string { return "adminSetDisabled" }
func (*AdminSetDisabledRequest) sizeHint() int  { return 0 }

func (r *AdminSetDisabledRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewAdminSetDisabled, func(s schema.AdminSetDisabledRequest) error {
		s.SetDisabled(r.Disabled)
		return s.SetAccountId(r.AccountID[:])
	})
}

func decodeAdminSetDisabledRequest(s schema.AdminSetDisabledRequest) (*AdminSetDisabledRequest, error) {
	var d decoder
	return result(&d, &AdminSetDisabledRequest{d.id("accountId")(s.AccountId()), s.Disabled()})
}

// AdminRevokeDeviceRequest ends a device of an account for good. It is answered by Done.
type AdminRevokeDeviceRequest struct{ AccountID, DeviceID ids.ID }

// Method implements Request.
func (*AdminRevokeDeviceRequest) Method() string { return "adminRevokeDevice" }
func (*AdminRevokeDeviceRequest) sizeHint() int  { return 0 }

func (r *AdminRevokeDeviceRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewAdminRevokeDevice, func(s schema.AdminRevokeDeviceRequest) error {
		return first(s.SetAccountId(r.AccountID[:]), s.SetDeviceId(r.DeviceID[:]))
	})
}

func decodeAdminRevokeDeviceRequest(s schema.AdminRevokeDeviceRequest) (*AdminRevokeDeviceRequest, error) {
	var d decoder
	return result(&d, &AdminRevokeDeviceRequest{d.id("accountId")(s.AccountId()), d.id("deviceId")(s.DeviceId())})
}

// AdminEndSessionsRequest ends the sessions of all devices of an account. It is answered by Done.
type AdminEndSessionsRequest struct{ AccountID ids.ID }

// Method implements Request.
func (*AdminEndSessionsRequest) Method() string { return "adminEndSessions" }
func (*AdminEndSessionsRequest) sizeHint() int  { return 0 }

func (r *AdminEndSessionsRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewAdminEndSessions, func(s schema.AdminEndSessionsRequest) error { return s.SetAccountId(r.AccountID[:]) })
}

func decodeAdminEndSessionsRequest(s schema.AdminEndSessionsRequest) (*AdminEndSessionsRequest, error) {
	var d decoder
	return result(&d, &AdminEndSessionsRequest{d.id("accountId")(s.AccountId())})
}

// AdminDeleteAccountRequest deletes an account. It is answered by Done.
type AdminDeleteAccountRequest struct {
	AccountID ids.ID
	Name      string // The account's own, against mistakes.
}

// Method implements Request.
func (*AdminDeleteAccountRequest) Method() string  { return "adminDeleteAccount" }
func (r *AdminDeleteAccountRequest) sizeHint() int { return len(r.Name) }

func (r *AdminDeleteAccountRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewAdminDeleteAccount, func(s schema.AdminDeleteAccountRequest) error {
		return first(s.SetAccountId(r.AccountID[:]), s.SetName(r.Name))
	})
}

func decodeAdminDeleteAccountRequest(s schema.AdminDeleteAccountRequest) (*AdminDeleteAccountRequest, error) {
	var d decoder
	return result(&d, &AdminDeleteAccountRequest{d.id("accountId")(s.AccountId()), d.text("name", 1, MaxName)(s.Name())})
}

// AdminExportAuditRequest asks for one page of the audit log. It is answered by an ExportPage.
type AdminExportAuditRequest struct{ After []byte }

// Method implements Request.
func (*AdminExportAuditRequest) Method() string  { return "adminExportAudit" }
func (r *AdminExportAuditRequest) sizeHint() int { return len(r.After) }

func (r *AdminExportAuditRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewAdminExportAudit, func(s schema.AdminExportAuditRequest) error { return s.SetAfter(r.After) })
}

func decodeAdminExportAuditRequest(s schema.AdminExportAuditRequest) (*AdminExportAuditRequest, error) {
	var d decoder
	return result(&d, &AdminExportAuditRequest{d.bytes("after", 0, MaxExportCursor)(s.After())})
}
