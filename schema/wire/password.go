package wire

import (
	"crypto/ed25519"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
)

// RecoveryCode is what a cell keeps of one recovery code (package codes).
type RecoveryCode struct {
	RecoveryKey    []byte // Ed25519 public key.
	WrappedRootKey []byte
}

type recoveryCodes []RecoveryCode

func (list recoveryCodes) sizeHint() int {
	n := 0
	for _, c := range list {
		n += 32 + len(c.RecoveryKey) + len(c.WrappedRootKey)
	}
	return n
}

// encode writes the list, and nothing for none.
func (list recoveryCodes) encode(create func(int32) (schema.RecoveryCode_List, error)) error {
	if len(list) == 0 {
		return nil
	}
	l, err := create(int32(len(list))) //nolint:gosec // the receiver takes 16.
	if err != nil {
		return err
	}
	for i, c := range list {
		if err := first(l.At(i).SetRecoveryKey(c.RecoveryKey), l.At(i).SetWrappedRootKey(c.WrappedRootKey)); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) recoveryCodes(l schema.RecoveryCode_List, err error) []RecoveryCode {
	if err != nil {
		d.fail(err)
		return nil
	}
	var list []RecoveryCode
	for i := range d.count("recoveryCodes", l.Len(), MaxRecoveryCodes) {
		list = append(list, RecoveryCode{d.bytes("recoveryKey", ed25519.PublicKeySize, ed25519.PublicKeySize)(l.At(i).RecoveryKey()),
			d.bytes("wrappedRootKey", 1, MaxWrappedKey)(l.At(i).WrappedRootKey())})
	}
	return list
}

// optional takes exactly n bytes, or none.
func (d *decoder) optional(field string, n int) func([]byte, error) []byte {
	return func(b []byte, err error) []byte {
		if err == nil && len(b) == 0 {
			return nil
		}
		return d.bytes(field, n, n)(b, err)
	}
}

func (d *decoder) invitation() func([]byte, error) []byte {
	return d.optional("invitation", codes.Size)
}

// SetPasswordStartRequest begins the registration of another password for the account that the connection has proven.
// It is answered by a SignupStartResponse.
type SetPasswordStartRequest struct{ RegistrationRequest []byte }

// Method implements Request.
func (*SetPasswordStartRequest) Method() string  { return "setPasswordStart" }
func (r *SetPasswordStartRequest) sizeHint() int { return len(r.RegistrationRequest) }

func (r *SetPasswordStartRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewSetPasswordStart, func(s schema.SetPasswordStartRequest) error {
		return s.SetRegistrationRequest(r.RegistrationRequest)
	})
}

func decodeSetPasswordStartRequest(s schema.SetPasswordStartRequest) (*SetPasswordStartRequest, error) {
	var d decoder
	return result(&d, &SetPasswordStartRequest{d.bytes("registrationRequest", 1, MaxOpaque)(s.RegistrationRequest())})
}

// SetPasswordFinishRequest replaces the account's password. It is answered by Done.
type SetPasswordFinishRequest struct {
	RegistrationRecord []byte
	WrappedRootKey     []byte
	OpaqueKey          uint32
	EndOtherSessions   bool
}

// Method implements Request.
func (*SetPasswordFinishRequest) Method() string { return "setPasswordFinish" }
func (r *SetPasswordFinishRequest) sizeHint() int {
	return len(r.RegistrationRecord) + len(r.WrappedRootKey)
}

func (r *SetPasswordFinishRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewSetPasswordFinish, func(s schema.SetPasswordFinishRequest) error {
		s.SetOpaqueKey(r.OpaqueKey)
		s.SetEndOtherSessions(r.EndOtherSessions)
		return first(s.SetRegistrationRecord(r.RegistrationRecord), s.SetWrappedRootKey(r.WrappedRootKey))
	})
}

func decodeSetPasswordFinishRequest(s schema.SetPasswordFinishRequest) (*SetPasswordFinishRequest, error) {
	var d decoder
	return result(&d, &SetPasswordFinishRequest{RegistrationRecord: d.bytes("registrationRecord", 1, MaxOpaque)(s.RegistrationRecord()),
		WrappedRootKey: d.bytes("wrappedRootKey", 1, MaxWrappedKey)(s.WrappedRootKey()),
		OpaqueKey:      s.OpaqueKey(), EndOtherSessions: s.EndOtherSessions()})
}

// RecoverRequest proves a recovery or reset code.
type RecoverRequest struct {
	Name        string
	RecoveryKey []byte
	Proof       []byte // codes.Keys.Prove.
}

// Method implements Request.
func (*RecoverRequest) Method() string { return "recover" }
func (r *RecoverRequest) sizeHint() int {
	return len(r.Name) + len(r.RecoveryKey) + len(r.Proof)
}

func (r *RecoverRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewRecover, func(s schema.RecoverRequest) error {
		return first(s.SetName(r.Name), s.SetRecoveryKey(r.RecoveryKey), s.SetProof(r.Proof))
	})
}

func decodeRecoverRequest(s schema.RecoverRequest) (*RecoverRequest, error) {
	var d decoder
	return result(&d, &RecoverRequest{Name: d.text("name", 1, MaxName)(s.Name()),
		RecoveryKey: d.bytes("recoveryKey", ed25519.PublicKeySize, ed25519.PublicKeySize)(s.RecoveryKey()),
		Proof:       d.bytes("proof", proofSize, proofSize)(s.Proof())})
}

// RecoverResponse hands back what a code opens. Without WrappedRootKey it was a reset code.
type RecoverResponse struct {
	AccountID               ids.ID
	RootKey, WrappedRootKey []byte
}

func (r *RecoverResponse) sizeHint() int { return len(r.RootKey) + len(r.WrappedRootKey) }

func (r *RecoverResponse) encodeResponse(p schema.Response) error {
	return fill(p.NewRecover, func(s schema.RecoverResponse) error {
		return first(s.SetAccountId(r.AccountID[:]), s.SetRootKey(r.RootKey), s.SetWrappedRootKey(r.WrappedRootKey))
	})
}

func decodeRecoverResponse(s schema.RecoverResponse) (*RecoverResponse, error) {
	var d decoder
	return result(&d, &RecoverResponse{AccountID: d.id("accountId")(s.AccountId()),
		RootKey: d.bytes("rootKey", 32, 32)(s.RootKey()), WrappedRootKey: d.bytes("wrappedRootKey", 0, MaxWrappedKey)(s.WrappedRootKey())})
}

// SetRecoveryCodesRequest replaces the account's recovery codes. It is answered by Done.
type SetRecoveryCodesRequest struct{ RecoveryCodes []RecoveryCode }

// Method implements Request.
func (*SetRecoveryCodesRequest) Method() string  { return "setRecoveryCodes" }
func (r *SetRecoveryCodesRequest) sizeHint() int { return recoveryCodes(r.RecoveryCodes).sizeHint() }

func (r *SetRecoveryCodesRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewSetRecoveryCodes, func(s schema.SetRecoveryCodesRequest) error {
		return recoveryCodes(r.RecoveryCodes).encode(s.NewRecoveryCodes)
	})
}

func decodeSetRecoveryCodesRequest(s schema.SetRecoveryCodesRequest) (*SetRecoveryCodesRequest, error) {
	var d decoder
	return result(&d, &SetRecoveryCodesRequest{d.recoveryCodes(s.RecoveryCodes())})
}

// ResetAccountRequest starts an account over, under another root key. It is answered by a Session.
type ResetAccountRequest struct {
	RegistrationRecord []byte
	WrappedRootKey     []byte
	Certificate        []byte // devicecert.Certificate, by the new root key.
	DeviceName         string
	Proof              []byte // devicecert.Prove.
	OpaqueKey          uint32
	RecoveryCodes      []RecoveryCode
}

// Method implements Request.
func (*ResetAccountRequest) Method() string { return "resetAccount" }
func (r *ResetAccountRequest) sizeHint() int {
	return len(r.RegistrationRecord) + len(r.WrappedRootKey) + len(r.Certificate) + len(r.DeviceName) + len(r.Proof) +
		recoveryCodes(r.RecoveryCodes).sizeHint()
}

func (r *ResetAccountRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewResetAccount, func(s schema.ResetAccountRequest) error {
		s.SetOpaqueKey(r.OpaqueKey)
		return first(s.SetRegistrationRecord(r.RegistrationRecord), s.SetWrappedRootKey(r.WrappedRootKey), s.SetCertificate(r.Certificate),
			s.SetDeviceName(r.DeviceName), s.SetProof(r.Proof), recoveryCodes(r.RecoveryCodes).encode(s.NewRecoveryCodes))
	})
}

func decodeResetAccountRequest(s schema.ResetAccountRequest) (*ResetAccountRequest, error) {
	var d decoder
	return result(&d, &ResetAccountRequest{RegistrationRecord: d.bytes("registrationRecord", 1, MaxOpaque)(s.RegistrationRecord()),
		WrappedRootKey: d.bytes("wrappedRootKey", 1, MaxWrappedKey)(s.WrappedRootKey()),
		Certificate:    d.bytes("certificate", devicecert.Size, devicecert.Size)(s.Certificate()),
		DeviceName:     d.text("deviceName", 0, MaxDeviceName)(s.DeviceName()),
		Proof:          d.bytes("proof", proofSize, proofSize)(s.Proof()),
		OpaqueKey:      s.OpaqueKey(), RecoveryCodes: d.recoveryCodes(s.RecoveryCodes())})
}

// EndSessionRequest ends the session of the connection's device. It is answered by Done.
type EndSessionRequest struct{}

// Method implements Request.
func (*EndSessionRequest) Method() string { return "endSession" }
func (*EndSessionRequest) sizeHint() int  { return 0 }

func (*EndSessionRequest) encodeRequest(q schema.Request) error {
	q.SetEndSession()
	return nil
}
