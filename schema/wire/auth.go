package wire

import (
	"time"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
)

// SignupStartRequest begins an OPAQUE registration (RFC 9807 §5).
type SignupStartRequest struct {
	Name                string
	RegistrationRequest []byte
	Invitation          []byte // codes.Code; nil: none.
}

// Method implements Request.
func (*SignupStartRequest) Method() string { return "signupStart" }
func (r *SignupStartRequest) sizeHint() int {
	return len(r.Name) + len(r.RegistrationRequest) + len(r.Invitation)
}

func (r *SignupStartRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewSignupStart, func(s schema.SignupStartRequest) error {
		if len(r.Invitation) > 0 {
			return first(s.SetName(r.Name), s.SetRegistrationRequest(r.RegistrationRequest), s.SetInvitation(r.Invitation))
		}
		return first(s.SetName(r.Name), s.SetRegistrationRequest(r.RegistrationRequest))
	})
}

func decodeSignupStartRequest(s schema.SignupStartRequest) (*SignupStartRequest, error) {
	var d decoder
	return result(&d, &SignupStartRequest{Name: d.text("name", 1, MaxName)(s.Name()),
		RegistrationRequest: d.bytes("registrationRequest", 1, MaxOpaque)(s.RegistrationRequest()),
		Invitation:          d.invitation()(s.Invitation())})
}

// SignupStartResponse answers SignupStartRequest and SetPasswordStartRequest.
type SignupStartResponse struct {
	RegistrationResponse []byte
	OpaqueKey            uint32 // Goes back with the record.
}

func (r *SignupStartResponse) sizeHint() int { return len(r.RegistrationResponse) }

func (r *SignupStartResponse) encodeResponse(p schema.Response) error {
	return fill(p.NewSignupStart, func(s schema.SignupStartResponse) error {
		s.SetOpaqueKey(r.OpaqueKey)
		return s.SetRegistrationResponse(r.RegistrationResponse)
	})
}

func decodeSignupStartResponse(s schema.SignupStartResponse) (*SignupStartResponse, error) {
	var d decoder
	return result(&d, &SignupStartResponse{d.bytes("registrationResponse", 1, MaxOpaque)(s.RegistrationResponse()), s.OpaqueKey()})
}

// SignupFinishRequest creates an account with its first device.
type SignupFinishRequest struct {
	Name               string
	RegistrationRecord []byte
	WrappedRootKey     []byte
	Certificate        []byte // devicecert.Certificate.
	DeviceName         string
	Proof              []byte // devicecert.Prove.
	Invitation         []byte // codes.Code; nil: none.
	OpaqueKey          uint32 // From SignupStartResponse; 0: the cell's present one.
	RecoveryCodes      []RecoveryCode
}

// Method implements Request.
func (*SignupFinishRequest) Method() string { return "signupFinish" }
func (r *SignupFinishRequest) sizeHint() int {
	return len(r.Name) + len(r.RegistrationRecord) + len(r.WrappedRootKey) + len(r.Certificate) + len(r.DeviceName) + len(r.Proof) +
		len(r.Invitation) + recoveryCodes(r.RecoveryCodes).sizeHint()
}

func (r *SignupFinishRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewSignupFinish, func(s schema.SignupFinishRequest) error {
		s.SetOpaqueKey(r.OpaqueKey)
		if len(r.Invitation) > 0 {
			if err := s.SetInvitation(r.Invitation); err != nil {
				return err
			}
		}
		return first(s.SetName(r.Name), s.SetRegistrationRecord(r.RegistrationRecord), s.SetWrappedRootKey(r.WrappedRootKey),
			s.SetCertificate(r.Certificate), s.SetDeviceName(r.DeviceName), s.SetProof(r.Proof), recoveryCodes(r.RecoveryCodes).encode(s.NewRecoveryCodes))
	})
}

func decodeSignupFinishRequest(s schema.SignupFinishRequest) (*SignupFinishRequest, error) {
	var d decoder
	return result(&d, &SignupFinishRequest{Name: d.text("name", 1, MaxName)(s.Name()),
		RegistrationRecord: d.bytes("registrationRecord", 1, MaxOpaque)(s.RegistrationRecord()),
		WrappedRootKey:     d.bytes("wrappedRootKey", 1, MaxWrappedKey)(s.WrappedRootKey()),
		Certificate:        d.bytes("certificate", devicecert.Size, devicecert.Size)(s.Certificate()),
		DeviceName:         d.text("deviceName", 0, MaxDeviceName)(s.DeviceName()),
		Proof:              d.bytes("proof", proofSize, proofSize)(s.Proof()),
		Invitation:         d.invitation()(s.Invitation()),
		OpaqueKey:          s.OpaqueKey(), RecoveryCodes: d.recoveryCodes(s.RecoveryCodes())})
}

// LoginStartRequest begins an OPAQUE login (RFC 9807 §6).
type LoginStartRequest struct {
	Name string
	KE1  []byte
	// DeviceID and Proof show that a device of the account asks, which no stranger's failures hold up. Both or none.
	DeviceID ids.ID
	Proof    []byte
}

// Method implements Request.
func (*LoginStartRequest) Method() string  { return "loginStart" }
func (r *LoginStartRequest) sizeHint() int { return len(r.Name) + len(r.KE1) + len(r.Proof) }

func (r *LoginStartRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewLoginStart, func(s schema.LoginStartRequest) error {
		if r.DeviceID.IsZero() {
			return first(s.SetName(r.Name), s.SetKe1(r.KE1))
		}
		return first(s.SetName(r.Name), s.SetKe1(r.KE1), s.SetDeviceId(r.DeviceID[:]), s.SetProof(r.Proof))
	})
}

func decodeLoginStartRequest(s schema.LoginStartRequest) (*LoginStartRequest, error) {
	var d decoder
	r := &LoginStartRequest{Name: d.text("name", 1, MaxName)(s.Name()), KE1: d.bytes("ke1", 1, MaxOpaque)(s.Ke1()),
		DeviceID: d.optionalID("deviceId")(s.DeviceId())}
	if !r.DeviceID.IsZero() {
		r.Proof = d.bytes("proof", proofSize, proofSize)(s.Proof())
	}
	return result(&d, r)
}

// LoginStartResponse answers LoginStartRequest, for names that exist and names that do not.
type LoginStartResponse struct{ KE2 []byte }

func (r *LoginStartResponse) sizeHint() int { return len(r.KE2) }

func (r *LoginStartResponse) encodeResponse(p schema.Response) error {
	return fill(p.NewLoginStart, func(s schema.LoginStartResponse) error { return s.SetKe2(r.KE2) })
}

func decodeLoginStartResponse(s schema.LoginStartResponse) (*LoginStartResponse, error) {
	var d decoder
	return result(&d, &LoginStartResponse{d.bytes("ke2", 1, MaxOpaque)(s.Ke2())})
}

// LoginFinishRequest proves the password.
type LoginFinishRequest struct{ KE3 []byte }

// Method implements Request.
func (*LoginFinishRequest) Method() string  { return "loginFinish" }
func (r *LoginFinishRequest) sizeHint() int { return len(r.KE3) }

func (r *LoginFinishRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewLoginFinish, func(s schema.LoginFinishRequest) error { return s.SetKe3(r.KE3) })
}

func decodeLoginFinishRequest(s schema.LoginFinishRequest) (*LoginFinishRequest, error) {
	var d decoder
	return result(&d, &LoginFinishRequest{d.bytes("ke3", 1, MaxOpaque)(s.Ke3())})
}

// LoginFinishResponse hands back what the account keeps with the cell.
type LoginFinishResponse struct {
	AccountID               ids.ID
	RootKey, WrappedRootKey []byte
	SetPassword             bool // The cell gives up the keys that the password is registered under.
}

func (r *LoginFinishResponse) sizeHint() int { return len(r.RootKey) + len(r.WrappedRootKey) }

func (r *LoginFinishResponse) encodeResponse(p schema.Response) error {
	return fill(p.NewLoginFinish, func(s schema.LoginFinishResponse) error {
		s.SetSetPassword(r.SetPassword)
		return first(s.SetAccountId(r.AccountID[:]), s.SetRootKey(r.RootKey), s.SetWrappedRootKey(r.WrappedRootKey))
	})
}

func decodeLoginFinishResponse(s schema.LoginFinishResponse) (*LoginFinishResponse, error) {
	var d decoder
	return result(&d, &LoginFinishResponse{AccountID: d.id("accountId")(s.AccountId()),
		RootKey: d.bytes("rootKey", 32, 32)(s.RootKey()), WrappedRootKey: d.bytes("wrappedRootKey", 1, MaxWrappedKey)(s.WrappedRootKey()),
		SetPassword: s.SetPassword()})
}

// StartSessionRequest starts a device's session after a login on the same connection.
type StartSessionRequest struct {
	Certificate []byte
	DeviceName  string
	Proof       []byte
}

// Method implements Request.
func (*StartSessionRequest) Method() string { return "startSession" }
func (r *StartSessionRequest) sizeHint() int {
	return len(r.Certificate) + len(r.DeviceName) + len(r.Proof)
}

func (r *StartSessionRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewStartSession, func(s schema.StartSessionRequest) error {
		return first(s.SetCertificate(r.Certificate), s.SetDeviceName(r.DeviceName), s.SetProof(r.Proof))
	})
}

func decodeStartSessionRequest(s schema.StartSessionRequest) (*StartSessionRequest, error) {
	var d decoder
	return result(&d, &StartSessionRequest{
		Certificate: d.bytes("certificate", devicecert.Size, devicecert.Size)(s.Certificate()),
		DeviceName:  d.text("deviceName", 0, MaxDeviceName)(s.DeviceName()),
		Proof:       d.bytes("proof", proofSize, proofSize)(s.Proof())})
}

// Session holds a device's tokens. The connection that received it is authenticated.
type Session struct {
	AccessToken      []byte
	AccessExpiresAt  time.Time
	RefreshToken     []byte
	RefreshExpiresAt time.Time
}

func (r *Session) sizeHint() int { return len(r.AccessToken) + len(r.RefreshToken) }

func (r *Session) encodeResponse(p schema.Response) error {
	return fill(p.NewSession, func(s schema.Session) error {
		s.SetAccessExpiresAt(r.AccessExpiresAt.UnixMilli())
		s.SetRefreshExpiresAt(r.RefreshExpiresAt.UnixMilli())
		return first(s.SetAccessToken(r.AccessToken), s.SetRefreshToken(r.RefreshToken))
	})
}

func decodeSession(s schema.Session) (*Session, error) {
	var d decoder
	return result(&d, &Session{
		AccessToken:     d.bytes("accessToken", 1, MaxToken)(s.AccessToken()),
		AccessExpiresAt: time.UnixMilli(s.AccessExpiresAt()),
		RefreshToken:    d.bytes("refreshToken", 1, MaxToken)(s.RefreshToken()), RefreshExpiresAt: time.UnixMilli(s.RefreshExpiresAt())})
}

// RefreshSessionRequest trades a refresh token for a new Session.
type RefreshSessionRequest struct {
	RefreshToken []byte
	DeviceID     ids.ID
	Proof        []byte
}

// Method implements Request.
func (*RefreshSessionRequest) Method() string  { return "refreshSession" }
func (r *RefreshSessionRequest) sizeHint() int { return len(r.RefreshToken) + len(r.Proof) }

func (r *RefreshSessionRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewRefreshSession, func(s schema.RefreshSessionRequest) error {
		return first(s.SetRefreshToken(r.RefreshToken), s.SetDeviceId(r.DeviceID[:]), s.SetProof(r.Proof))
	})
}

func decodeRefreshSessionRequest(s schema.RefreshSessionRequest) (*RefreshSessionRequest, error) {
	var d decoder
	return result(&d, &RefreshSessionRequest{RefreshToken: d.bytes("refreshToken", 1, MaxToken)(s.RefreshToken()),
		DeviceID: d.id("deviceId")(s.DeviceId()), Proof: d.bytes("proof", proofSize, proofSize)(s.Proof())})
}

// AuthenticateRequest binds an access token to the connection.
type AuthenticateRequest struct{ AccessToken, Proof []byte }

// Method implements Request.
func (*AuthenticateRequest) Method() string  { return "authenticate" }
func (r *AuthenticateRequest) sizeHint() int { return len(r.AccessToken) + len(r.Proof) }

func (r *AuthenticateRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewAuthenticate, func(s schema.AuthenticateRequest) error {
		return first(s.SetAccessToken(r.AccessToken), s.SetProof(r.Proof))
	})
}

func decodeAuthenticateRequest(s schema.AuthenticateRequest) (*AuthenticateRequest, error) {
	var d decoder
	return result(&d, &AuthenticateRequest{AccessToken: d.bytes("accessToken", 1, MaxToken)(s.AccessToken()),
		Proof: d.bytes("proof", proofSize, proofSize)(s.Proof())})
}

// AuthenticateResponse says whom the connection now speaks for.
type AuthenticateResponse struct{ AccountID, DeviceID ids.ID }

func (*AuthenticateResponse) sizeHint() int { return 0 }

func (r *AuthenticateResponse) encodeResponse(p schema.Response) error {
	return fill(p.NewAuthenticate, func(s schema.AuthenticateResponse) error {
		return first(s.SetAccountId(r.AccountID[:]), s.SetDeviceId(r.DeviceID[:]))
	})
}

func decodeAuthenticateResponse(s schema.AuthenticateResponse) (*AuthenticateResponse, error) {
	var d decoder
	return result(&d, &AuthenticateResponse{AccountID: d.id("accountId")(s.AccountId()), DeviceID: d.id("deviceId")(s.DeviceId())})
}
