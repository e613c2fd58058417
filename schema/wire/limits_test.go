package wire

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
)

// broken is a message with one fault.
type broken struct {
	name  string
	body  Body
	code  Code
	field string // In the error's details; "" for codes that name none.
}

// without returns a sample with one thing changed, for CodeInvalidArgument naming field.
func without[B any](t *testing.T, field, fault string, change func(*B)) broken {
	t.Helper()
	b := sampleOf[B](t)
	change(b)
	body := any(b).(Body)
	return broken{strings.TrimPrefix(typeName(body), "*wire.") + " " + field + " " + fault, body, CodeInvalidArgument, field}
}

// lengths returns the two faults of a field that takes lo to hi bytes: one byte too few and one too many.
func lengths[B any](t *testing.T, field string, lo, hi int, get func(*B) *[]byte) []broken {
	t.Helper()
	all := []broken{without(t, field, "too long", func(b *B) { *get(b) = pattern(1, hi+1) })}
	if lo > 0 {
		all = append(all, without(t, field, "too short", func(b *B) { *get(b) = pattern(1, lo-1) }),
			without(t, field, "missing", func(b *B) { *get(b) = nil }))
	}
	return all
}

// texts returns the faults of a text of lo to hi bytes.
func texts[B any](t *testing.T, field string, lo, hi int, get func(*B) *string) []broken {
	t.Helper()
	all := []broken{without(t, field, "too long", func(b *B) { *get(b) = strings.Repeat("a", hi+1) }),
		without(t, field, "no UTF-8", func(b *B) { *get(b) = "a\xffb" }),
		without(t, field, "half a rune", func(b *B) { *get(b) = "é"[:1] })}
	if lo > 0 {
		all = append(all, without(t, field, "empty", func(b *B) { *get(b) = "" }))
	}
	return all
}

func zeroID[B any](t *testing.T, field string, get func(*B) *ids.ID) broken {
	t.Helper()
	return without(t, field, "all zero", func(b *B) { *get(b) = ids.ID{} })
}

func brokenAuth(t *testing.T) (all []broken) {
	add := func(b ...broken) { all = append(all, b...) }
	add(texts(t, "name", 1, MaxName, func(r *SignupStartRequest) *string { return &r.Name })...)
	add(lengths(t, "registrationRequest", 1, MaxOpaque, func(r *SignupStartRequest) *[]byte { return &r.RegistrationRequest })...)
	add(lengths(t, "registrationResponse", 1, MaxOpaque, func(r *SignupStartResponse) *[]byte { return &r.RegistrationResponse })...)
	add(texts(t, "name", 1, MaxName, func(r *SignupFinishRequest) *string { return &r.Name })...)
	add(lengths(t, "registrationRecord", 1, MaxOpaque, func(r *SignupFinishRequest) *[]byte { return &r.RegistrationRecord })...)
	add(lengths(t, "wrappedRootKey", 1, MaxWrappedKey, func(r *SignupFinishRequest) *[]byte { return &r.WrappedRootKey })...)
	add(lengths(t, "certificate", devicecert.Size, devicecert.Size, func(r *SignupFinishRequest) *[]byte { return &r.Certificate })...)
	add(texts(t, "deviceName", 0, MaxDeviceName, func(r *SignupFinishRequest) *string { return &r.DeviceName })...)
	add(lengths(t, "proof", 64, 64, func(r *SignupFinishRequest) *[]byte { return &r.Proof })...)
	add(texts(t, "name", 1, MaxName, func(r *LoginStartRequest) *string { return &r.Name })...)
	add(lengths(t, "ke1", 1, MaxOpaque, func(r *LoginStartRequest) *[]byte { return &r.KE1 })...)
	add(lengths(t, "ke2", 1, MaxOpaque, func(r *LoginStartResponse) *[]byte { return &r.KE2 })...)
	add(lengths(t, "ke3", 1, MaxOpaque, func(r *LoginFinishRequest) *[]byte { return &r.KE3 })...)
	add(zeroID(t, "accountId", func(r *LoginFinishResponse) *ids.ID { return &r.AccountID }))
	add(lengths(t, "rootKey", 32, 32, func(r *LoginFinishResponse) *[]byte { return &r.RootKey })...)
	add(lengths(t, "wrappedRootKey", 1, MaxWrappedKey, func(r *LoginFinishResponse) *[]byte { return &r.WrappedRootKey })...)
	add(lengths(t, "certificate", devicecert.Size, devicecert.Size, func(r *StartSessionRequest) *[]byte { return &r.Certificate })...)
	add(texts(t, "deviceName", 0, MaxDeviceName, func(r *StartSessionRequest) *string { return &r.DeviceName })...)
	add(lengths(t, "proof", 64, 64, func(r *StartSessionRequest) *[]byte { return &r.Proof })...)
	add(lengths(t, "accessToken", 1, MaxToken, func(r *Session) *[]byte { return &r.AccessToken })...)
	add(lengths(t, "refreshToken", 1, MaxToken, func(r *Session) *[]byte { return &r.RefreshToken })...)
	add(lengths(t, "refreshToken", 1, MaxToken, func(r *RefreshSessionRequest) *[]byte { return &r.RefreshToken })...)
	add(zeroID(t, "deviceId", func(r *RefreshSessionRequest) *ids.ID { return &r.DeviceID }))
	add(lengths(t, "proof", 64, 64, func(r *RefreshSessionRequest) *[]byte { return &r.Proof })...)
	add(lengths(t, "accessToken", 1, MaxToken, func(r *AuthenticateRequest) *[]byte { return &r.AccessToken })...)
	add(lengths(t, "proof", 64, 64, func(r *AuthenticateRequest) *[]byte { return &r.Proof })...)
	add(zeroID(t, "accountId", func(r *AuthenticateResponse) *ids.ID { return &r.AccountID }))
	add(zeroID(t, "deviceId", func(r *AuthenticateResponse) *ids.ID { return &r.DeviceID }))
	return append(all, brokenPassword(t)...)
}

func brokenPassword(t *testing.T) (all []broken) {
	add := func(b ...broken) { all = append(all, b...) }
	add(without(t, "invitation", "too short", func(r *SignupStartRequest) { r.Invitation = pattern(1, 15) }),
		without(t, "invitation", "too long", func(r *SignupFinishRequest) { r.Invitation = pattern(1, 17) }),
		without(t, "proof", "missing", func(r *LoginStartRequest) { r.DeviceID = bob }),
		without(t, "proof", "too short", func(r *LoginStartRequest) { r.DeviceID, r.Proof = bob, pattern(1, 63) }),
		without(t, "recoveryCodes", "too many", func(r *SignupFinishRequest) { r.RecoveryCodes = make([]RecoveryCode, MaxRecoveryCodes+1) }),
		without(t, "recoveryCodes", "too many", func(r *ResetAccountRequest) { r.RecoveryCodes = make([]RecoveryCode, MaxRecoveryCodes+1) }),
		without(t, "recoveryCodes", "too many", func(r *SetRecoveryCodesRequest) { r.RecoveryCodes = make([]RecoveryCode, MaxRecoveryCodes+1) }))
	add(lengths(t, "registrationRequest", 1, MaxOpaque, func(r *SetPasswordStartRequest) *[]byte { return &r.RegistrationRequest })...)
	add(lengths(t, "registrationRecord", 1, MaxOpaque, func(r *SetPasswordFinishRequest) *[]byte { return &r.RegistrationRecord })...)
	add(lengths(t, "wrappedRootKey", 1, MaxWrappedKey, func(r *SetPasswordFinishRequest) *[]byte { return &r.WrappedRootKey })...)
	add(texts(t, "name", 1, MaxName, func(r *RecoverRequest) *string { return &r.Name })...)
	add(lengths(t, "recoveryKey", 32, 32, func(r *RecoverRequest) *[]byte { return &r.RecoveryKey })...)
	add(lengths(t, "proof", 64, 64, func(r *RecoverRequest) *[]byte { return &r.Proof })...)
	add(zeroID(t, "accountId", func(r *RecoverResponse) *ids.ID { return &r.AccountID }))
	add(lengths(t, "rootKey", 32, 32, func(r *RecoverResponse) *[]byte { return &r.RootKey })...)
	add(lengths(t, "wrappedRootKey", 0, MaxWrappedKey, func(r *RecoverResponse) *[]byte { return &r.WrappedRootKey })...)
	add(lengths(t, "recoveryKey", 32, 32, func(r *SetRecoveryCodesRequest) *[]byte { return &r.RecoveryCodes[1].RecoveryKey })...)
	add(lengths(t, "wrappedRootKey", 1, MaxWrappedKey, func(r *SetRecoveryCodesRequest) *[]byte { return &r.RecoveryCodes[1].WrappedRootKey })...)
	add(lengths(t, "registrationRecord", 1, MaxOpaque, func(r *ResetAccountRequest) *[]byte { return &r.RegistrationRecord })...)
	add(lengths(t, "wrappedRootKey", 1, MaxWrappedKey, func(r *ResetAccountRequest) *[]byte { return &r.WrappedRootKey })...)
	add(lengths(t, "certificate", devicecert.Size, devicecert.Size, func(r *ResetAccountRequest) *[]byte { return &r.Certificate })...)
	add(texts(t, "deviceName", 0, MaxDeviceName, func(r *ResetAccountRequest) *string { return &r.DeviceName })...)
	add(lengths(t, "proof", 64, 64, func(r *ResetAccountRequest) *[]byte { return &r.Proof })...)
	return all
}

func brokenKeysAndChannels(t *testing.T) (all []broken) {
	add := func(b ...broken) { all = append(all, b...) }
	add(lengths(t, "lastResort", 0, MaxKeyPackage, func(r *UploadKeyPackagesRequest) *[]byte { return &r.LastResort })...)
	add(lengths(t, "oneTime", 1, MaxKeyPackage, func(r *UploadKeyPackagesRequest) *[]byte { return &r.OneTime[1] })...)
	add(without(t, "oneTime", "too many", func(r *UploadKeyPackagesRequest) { r.OneTime = make([][]byte, MaxKeyPackages+1) }))
	add(zeroID(t, "requestId", func(r *ClaimKeyPackagesRequest) *ids.ID { return &r.RequestID }))
	add(zeroID(t, "accountId", func(r *ClaimKeyPackagesRequest) *ids.ID { return &r.AccountID }))
	add(zeroID(t, "deviceId", func(r *ClaimKeyPackagesResponse) *ids.ID { return &r.Packages[1].DeviceID }))
	add(lengths(t, "keyPackage", 1, MaxKeyPackage, func(r *ClaimKeyPackagesResponse) *[]byte { return &r.Packages[1].KeyPackage })...)
	add(without(t, "packages", "too many", func(r *ClaimKeyPackagesResponse) { r.Packages = make([]ClaimedKeyPackage, MaxDevices+1) }))
	add(texts(t, "name", 0, MaxName, func(r *GetAccountRequest) *string { return &r.Name })...)
	add(without(t, "accountId", "all zero", func(r *GetAccountRequest) { *r = GetAccountRequest{} }))
	add(zeroID(t, "accountId", func(r *Account) *ids.ID { return &r.AccountID }))
	add(texts(t, "name", 1, MaxName, func(r *Account) *string { return &r.Name })...)
	add(lengths(t, "rootKey", 32, 32, func(r *Account) *[]byte { return &r.RootKey })...)
	add(zeroID(t, "accountId", func(r *OpenDMRequest) *ids.ID { return &r.AccountID }))
	add(zeroID(t, "channelId", func(r *Channel) *ids.ID { return &r.ChannelID }))
	add(zeroID(t, "accountId", func(r *Channel) *ids.ID { return &r.Peer.AccountID }))
	add(zeroID(t, "channelId", func(r *CreateGroupRequest) *ids.ID { return &r.ChannelID }))
	add(without(t, "generation", "zero", func(r *CreateGroupRequest) { r.Generation = 0 }))
	add(lengths(t, "groupInfo", 1, MaxGroupInfo, func(r *CreateGroupRequest) *[]byte { return &r.GroupInfo })...)
	add(zeroID(t, "deviceId", func(r *CreateGroupRequest) *ids.ID { return &r.Welcomes[1].DeviceID }))
	add(lengths(t, "welcome", 1, MaxWelcome, func(r *CreateGroupRequest) *[]byte { return &r.Welcomes[1].Welcome })...)
	add(without(t, "welcomes", "too many", func(r *CreateGroupRequest) { r.Welcomes = make([]DeviceWelcome, MaxWelcomes+1) }))
	return all
}

func brokenDelivery(t *testing.T) (all []broken) {
	add := func(b ...broken) { all = append(all, b...) }
	add(texts(t, "client", 0, MaxClientName, func(r *HelloRequest) *string { return &r.Client })...)
	add(texts(t, "server", 0, MaxClientName, func(r *HelloResponse) *string { return &r.Server })...)
	add(zeroID(t, "cellId", func(r *HelloResponse) *ids.ID { return &r.CellID }))
	add(without(t, "cipherSuites", "too many", func(r *HelloResponse) { r.CipherSuites = make([]uint16, maxCipherSuites+1) }))
	add(zeroID(t, "channelId", func(r *EnqueueRequest) *ids.ID { return &r.ChannelID }))
	add(zeroID(t, "deliveryId", func(r *EnqueueRequest) *ids.ID { return &r.DeliveryID }))
	add(without(t, "payload", "empty", func(r *EnqueueRequest) { r.Payload = nil }))
	tooLarge := sampleOf[EnqueueRequest](t)
	tooLarge.Payload = make([]byte, MaxPayload+1)
	add(broken{"EnqueueRequest payload too large", tooLarge, CodePayloadTooLarge, ""})
	add(without(t, "credit", "too much", func(r *SubscribeRequest) { r.Credit = MaxCredit + 1 }))
	add(without(t, "credit", "too much", func(r *SubscribeResponse) { r.Credit = MaxCredit + 1 }))
	add(zeroID(t, "channelId", func(r *AckRequest) *ids.ID { return &r.Acks[1].ChannelID }))
	add(without(t, "acks", "too many", func(r *AckRequest) { r.Acks = make([]Ack, MaxAcks+1) }))
	add(zeroID(t, "channelId", func(r *Delivery) *ids.ID { return &r.ChannelID }))
	add(zeroID(t, "senderAccountId", func(r *Delivery) *ids.ID { return &r.SenderAccountID }))
	add(zeroID(t, "senderDeviceId", func(r *Delivery) *ids.ID { return &r.SenderDeviceID }))
	add(zeroID(t, "deliveryId", func(r *Delivery) *ids.ID { return &r.DeliveryID }))
	add(lengths(t, "payload", 0, MaxPayload, func(r *Delivery) *[]byte { return &r.Payload })...)
	return all
}

func TestLimits(t *testing.T) {
	t.Parallel()
	all := append(append(brokenAuth(t), brokenKeysAndChannels(t)...), brokenDelivery(t)...)
	if len(all) < 120 {
		t.Errorf("only %d faults are tried", len(all))
	}
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := Unmarshal(mustMarshal(t, Envelope{CorrelationID: 77, Body: c.body}))
			checkError(t, err, c.code, "field", c.field)
			if c.code == CodePayloadTooLarge {
				checkError(t, err, c.code, "limit", strconv.Itoa(MaxPayload))
			}
			if got.CorrelationID != 77 || got.Body != nil {
				t.Errorf("the envelope is %+v, want its correlation id and no body", got)
			}
		})
	}
}

// checkError fails unless err is an *Error of a code with a message and a detail; value "" asks for no detail.
func checkError(t *testing.T, err error, code Code, key, value string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no *Error", err)
	}
	if e.Code != code || e.Message == "" || e.Retryable {
		t.Errorf("%v, retryable %v; want %v, permanent, with a message", err, e.Retryable, code)
	}
	if value == "" {
		return
	}
	for _, d := range e.Details {
		if d.Key == key {
			if d.Value != value {
				t.Errorf("%s is %q, want %q (%v)", key, d.Value, value, err)
			}
			return
		}
	}
	t.Errorf("no detail %q in %+v", key, e)
}

func typeName(v any) string { return strings.SplitN(strings.TrimPrefix(typeString(v), "*"), "[", 2)[0] }

// The largest and the smallest values that a limit allows do pass.
func TestLimitsAreInclusive(t *testing.T) {
	t.Parallel()
	text := func(n int) string { return strings.Repeat("a", n) }
	bodies := []Body{
		&SignupFinishRequest{Name: text(MaxName), RegistrationRecord: pattern(1, MaxOpaque), WrappedRootKey: pattern(1, MaxWrappedKey),
			Certificate: certificate, DeviceName: text(MaxDeviceName), Proof: proof},
		&SignupFinishRequest{Name: "a", RegistrationRecord: []byte{1}, WrappedRootKey: []byte{1}, Certificate: certificate, Proof: proof},
		&Session{AccessToken: pattern(1, MaxToken), RefreshToken: []byte{1}},
		&HelloRequest{Client: text(MaxClientName)},
		&HelloRequest{},
		&UploadKeyPackagesRequest{},
		&UploadKeyPackagesRequest{OneTime: [][]byte{{1}, pattern(1, MaxKeyPackage)}, LastResort: pattern(1, MaxKeyPackage)},
		&ClaimKeyPackagesResponse{},
		&CreateGroupRequest{ChannelID: dm, Generation: 1<<32 - 1, GroupInfo: []byte{1}},
		&EnqueueRequest{ChannelID: dm, DeliveryID: deliveryID, Payload: []byte{1}},
		&SubscribeRequest{Credit: MaxCredit},
		&AckRequest{},
	}
	for _, body := range bodies {
		if _, err := Unmarshal(mustMarshal(t, Envelope{CorrelationID: 1, Body: body})); err != nil {
			t.Errorf("%+v: %v", body, err)
		}
	}
}
