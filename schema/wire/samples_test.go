package wire

import (
	"bytes"
	"crypto/ed25519"
	"testing"
	"time"

	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
)

// A sample is one message with every field filled. The golden captures are made of them: never change one, add.
type sample struct {
	name string // Of its golden file.
	env  Envelope
}

// Fixed values for samples. Ids are one byte repeated, except delivery ids, which carry a time.
var (
	alice       = ids.ID(pattern(0xa1, 16))
	alicePhone  = ids.ID(pattern(0xa2, 16))
	bob         = ids.ID(pattern(0xb1, 16))
	bobLaptop   = ids.ID(pattern(0xb2, 16))
	dm          = ids.ID(pattern(0xc1, 16))
	requestID   = ids.ID(pattern(0xd1, 16))
	linkID      = ids.ID(pattern(0xf1, 16))
	cellID      = ids.ID(pattern(0xe1, 16))
	deliveryID  = ids.ID{0x01, 0x9c, 0xb6, 0x64, 0x51, 0x00, 0x70, 1, 0x80, 2, 3, 4, 5, 6, 7, 8}
	sentAt      = time.UnixMilli(0x019cb6645100)
	rootKey     = ed25519.NewKeyFromSeed(pattern(0x11, 32))
	deviceKey   = ed25519.NewKeyFromSeed(pattern(0x22, 32))
	certificate = devicecert.Issue(rootKey, alice, alicePhone, public(deviceKey), sentAt).Marshal()
	exporter    = pattern(0x33, devicecert.ExporterSize)
	proof       = devicecert.Prove(deviceKey, exporter)
)

func pattern(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

func public(k ed25519.PrivateKey) []byte { return k.Public().(ed25519.PublicKey) }

func samples() []sample {
	return append(append(requestSamples(), responseSamples()...), pushAndErrorSamples()...)
}

func requestSamples() []sample {
	requests := []struct {
		name string
		body Request
	}{
		{"hello", &HelloRequest{Client: "example/1.0", MinVersion: 1, MaxVersion: 1}},
		{"signup-start", &SignupStartRequest{Name: "alice", RegistrationRequest: pattern(0x41, 32)}},
		{"signup-finish", &SignupFinishRequest{Name: "alice", RegistrationRecord: pattern(0x42, 192), WrappedRootKey: pattern(0x43, 61),
			Certificate: certificate, DeviceName: "Alice's phone", Proof: proof}},
		{"login-start", &LoginStartRequest{Name: "Zoë", KE1: pattern(0x44, 96)}},
		{"login-finish", &LoginFinishRequest{KE3: pattern(0x45, 64)}},
		{"start-session", &StartSessionRequest{Certificate: certificate, DeviceName: "Alice's phone", Proof: proof}},
		{"refresh-session", &RefreshSessionRequest{RefreshToken: pattern(0x46, 48), DeviceID: alicePhone, Proof: proof}},
		{"authenticate", &AuthenticateRequest{AccessToken: pattern(0x47, 124), Proof: proof}},
		{"upload-key-packages", &UploadKeyPackagesRequest{OneTime: [][]byte{pattern(0x48, 300), pattern(0x49, 301)}, LastResort: pattern(0x4a, 302)}},
		{"key-package-status", &KeyPackageStatusRequest{}},
		{"claim-key-packages", &ClaimKeyPackagesRequest{RequestID: requestID, AccountID: bob}},
		{"get-account-by-name", &GetAccountRequest{Name: "bob"}},
		{"get-account-by-id", &GetAccountRequest{AccountID: bob}},
		{"open-dm", &OpenDMRequest{AccountID: bob}},
		{"create-group", &CreateGroupRequest{ChannelID: dm, Generation: 1, GroupInfo: pattern(0x4b, 400),
			Welcomes: []DeviceWelcome{{DeviceID: bobLaptop, Welcome: pattern(0x4c, 410)}, {DeviceID: bob, Welcome: pattern(0x4d, 7)}}}},
		{"enqueue", &EnqueueRequest{ChannelID: dm, Generation: 1, DeliveryID: deliveryID, Payload: pattern(0x4e, 50)}},
		{"subscribe", &SubscribeRequest{Credit: 256}},
		{"ack", &AckRequest{Acks: []Ack{{ChannelID: dm, Seq: 42}, {ChannelID: alicePhone, Seq: 1 << 40}}}},
		{"set-password-start", &SetPasswordStartRequest{RegistrationRequest: pattern(0x41, 32)}},
		{"set-password-finish", &SetPasswordFinishRequest{RegistrationRecord: pattern(0x42, 192), WrappedRootKey: pattern(0x43, 61), OpaqueKey: 2, EndOtherSessions: true}},
		{"recover", &RecoverRequest{Name: "alice", RecoveryKey: pattern(0x61, 32), Proof: pattern(0x62, 64)}},
		{"set-recovery-codes", &SetRecoveryCodesRequest{RecoveryCodes: twoCodes()}},
		{"reset-account", &ResetAccountRequest{RegistrationRecord: pattern(0x42, 192), WrappedRootKey: pattern(0x43, 61), Certificate: certificate,
			DeviceName: "Alice's phone", Proof: proof, OpaqueKey: 2, RecoveryCodes: twoCodes()}},
		{"end-session", &EndSessionRequest{}},
		{"signup-start-by-invitation", &SignupStartRequest{Name: "alice", RegistrationRequest: pattern(0x41, 32), Invitation: pattern(0x63, 16)}},
		{"signup-finish-by-invitation", &SignupFinishRequest{Name: "alice", RegistrationRecord: pattern(0x42, 192), WrappedRootKey: pattern(0x43, 61),
			Certificate: certificate, DeviceName: "Alice's phone", Proof: proof, Invitation: pattern(0x63, 16), OpaqueKey: 2, RecoveryCodes: twoCodes()}},
		{"login-start-by-device", &LoginStartRequest{Name: "Zoë", KE1: pattern(0x44, 96), DeviceID: alicePhone, Proof: proof}},
		{"subscribe-with-notices", &SubscribeRequest{Credit: 256, Notices: true}},
		{"list-devices", &ListDevicesRequest{}},
		{"rename-device", &RenameDeviceRequest{DeviceID: alicePhone, Name: "Alice's old phone"}},
		{"revoke-device", &RevokeDeviceRequest{DeviceID: alicePhone}},
		{"start-device-link", &StartDeviceLinkRequest{LinkID: linkID, Offer: pattern(0x71, 96)}},
		{"get-device-link", &GetDeviceLinkRequest{LinkID: linkID}},
		{"approve-device-link", &ApproveDeviceLinkRequest{LinkID: linkID, Certificate: certificate, DeviceName: "Alice's laptop", Approval: pattern(0x72, 200)}},
		{"finish-device-link", &FinishDeviceLinkRequest{LinkID: linkID, Proof: proof}},
		{"delete-account", &DeleteAccountRequest{Name: "alice"}},
		{"export-account", &ExportAccountRequest{After: pattern(0x73, 17)}},
		{"admin-authenticate", &AdminAuthenticateRequest{Token: pattern(0x74, 90)}},
		{"admin-invite", &AdminInviteRequest{Count: 2, Lifetime: 72 * time.Hour}},
		{"admin-reset-code", &AdminResetCodeRequest{Name: "bob", Lifetime: time.Hour}},
		{"admin-get-account-by-name", &AdminGetAccountRequest{Name: "bob"}},
		{"admin-get-account-by-id", &AdminGetAccountRequest{AccountID: bob}},
		{"admin-set-disabled", &AdminSetDisabledRequest{AccountID: bob, Disabled: true}},
		{"admin-revoke-device", &AdminRevokeDeviceRequest{AccountID: bob, DeviceID: bobLaptop}},
		{"admin-end-sessions", &AdminEndSessionsRequest{AccountID: bob}},
		{"admin-delete-account", &AdminDeleteAccountRequest{AccountID: bob, Name: "bob"}},
		{"admin-export-audit", &AdminExportAuditRequest{After: pattern(0x75, 24)}},
		{"open-group", &OpenGroupRequest{ChannelID: dm}},
		{"get-channel", &GetChannelRequest{ChannelID: dm}},
		{"list-channels", &ListChannelsRequest{After: dm}},
		{"set-role", &SetRoleRequest{ChannelID: dm, AccountID: bob, Role: RoleModerator}},
		{"set-retention", &SetRetentionRequest{ChannelID: dm, Retention: 24 * time.Hour, History: HistoryOff}},
		{"get-group-info", &GetGroupInfoRequest{ChannelID: dm}},
		{"vote-generation", &VoteGenerationRequest{ChannelID: dm, Generation: 2}},
		{"commit", &CommitRequest{ChannelID: dm, Generation: 1, Epoch: 7, DeliveryID: deliveryID, Commit: pattern(0x81, 200), GroupInfo: pattern(0x82, 210),
			Welcomes: []DeviceWelcome{{DeviceID: bobLaptop, Welcome: pattern(0x4c, 410)}}}},
		{"propose", &ProposeRequest{ChannelID: dm, Generation: 1, DeliveryID: deliveryID, Proposal: pattern(0x83, 90)}},
		{"list-contacts", &ListContactsRequest{After: bob}},
		{"accept-contact", &AcceptContactRequest{AccountID: bob}},
		{"block-account", &BlockAccountRequest{AccountID: bob, Blocked: true}},
	}
	var all []sample
	for i, r := range requests {
		all = append(all, sample{"request-" + r.name, Envelope{CorrelationID: uint64(i + 1), Body: r.body}})
	}
	return all
}

func twoCodes() []RecoveryCode {
	return []RecoveryCode{{pattern(0x61, 32), pattern(0x64, 61)}, {pattern(0x65, 32), pattern(0x66, 61)}}
}

func noticeFrame(n Notice) []byte {
	b, err := MarshalNotice(n)
	if err != nil {
		panic(err)
	}
	return b
}

func groupChannel() *Channel {
	return &Channel{ChannelID: dm, Generation: 1, LastSeq: 41, Kind: ChannelGroup, Epoch: 7, Role: RoleAdmin, Retention: 24 * time.Hour, History: HistoryOff}
}

func directChannel() *Channel {
	return &Channel{ChannelID: dm, Generation: 1, Peer: Account{AccountID: bob, Name: "bob", RootKey: public(rootKey)}, LastSeq: 41, Epoch: 7,
		Role: RoleMember, Retention: 24 * time.Hour, History: HistoryOn, Contact: ContactAccepted}
}

func twoDevices() []Device {
	return []Device{{DeviceID: alicePhone, Name: "Alice's phone", Certificate: certificate, AddedAt: sentAt, LastSeenAt: sentAt.Add(24 * time.Hour)},
		{DeviceID: bobLaptop, Name: "Laptop", Certificate: certificate, AddedAt: sentAt.Add(time.Hour), LastSeenAt: sentAt.Add(48 * time.Hour)}}
}

func responseSamples() []sample {
	responses := []struct {
		name string
		body Response
	}{
		{"done", &Done{}},
		{"hello", &HelloResponse{Server: "cell/1.0", Version: 1, CellID: cellID, RestoreEpoch: 3, ServerTime: sentAt,
			MaxControlFrame: 64 << 10, MaxPayload: 5 << 20, CipherSuites: []uint16{1}, KeyPackageLifetime: 24 * time.Hour,
			LastResortLifetime: 30 * 24 * time.Hour, MaxKeyPackages: 100}},
		{"signup-start", &SignupStartResponse{RegistrationResponse: pattern(0x51, 64)}},
		{"session", &Session{AccessToken: pattern(0x47, 124), AccessExpiresAt: sentAt.Add(15 * time.Minute),
			RefreshToken: pattern(0x46, 48), RefreshExpiresAt: sentAt.Add(30 * 24 * time.Hour)}},
		{"login-start", &LoginStartResponse{KE2: pattern(0x52, 320)}},
		{"login-finish", &LoginFinishResponse{AccountID: alice, RootKey: public(rootKey), WrappedRootKey: pattern(0x43, 61)}},
		{"authenticate", &AuthenticateResponse{AccountID: alice, DeviceID: alicePhone}},
		{"key-package-status", &KeyPackageStatus{OneTime: 99, LastResortExpiresAt: sentAt.Add(30 * 24 * time.Hour)}},
		{"claim-key-packages", &ClaimKeyPackagesResponse{Packages: []ClaimedKeyPackage{
			{DeviceID: bobLaptop, KeyPackage: pattern(0x48, 300), LastResort: true}, {DeviceID: bob, KeyPackage: pattern(0x49, 9), LastResort: true}}}},
		{"account", &Account{AccountID: bob, Name: "bob", RootKey: public(rootKey)}},
		{"channel", &Channel{ChannelID: dm, Generation: 1, Peer: Account{AccountID: bob, Name: "bob", RootKey: public(rootKey)}, LastSeq: 41}},
		{"create-group", &CreateGroupResponse{StartSeq: 41}},
		{"enqueue", &EnqueueResponse{Seq: 42, AcceptedAt: sentAt.Add(20 * time.Millisecond), Duplicate: true}},
		{"subscribe", &SubscribeResponse{RestoreEpoch: 3, Credit: 256}},
		{"recover", &RecoverResponse{AccountID: alice, RootKey: public(rootKey), WrappedRootKey: pattern(0x64, 61)}},
		{"signup-start-with-key", &SignupStartResponse{RegistrationResponse: pattern(0x51, 64), OpaqueKey: 2}},
		{"login-finish-set-password", &LoginFinishResponse{AccountID: alice, RootKey: public(rootKey), WrappedRootKey: pattern(0x43, 61), SetPassword: true}},
		{"device-list", &DeviceList{Devices: twoDevices()}},
		{"device-link", &DeviceLink{Offer: pattern(0x71, 96), Approval: pattern(0x72, 200), Certificate: certificate, ExpiresAt: sentAt.Add(10 * time.Minute)}},
		{"export-page", &ExportPage{Lines: []byte("{\"kind\":\"account\"}\n"), Next: pattern(0x73, 17)}},
		{"admin-session", &AdminSession{Name: "ops", Role: AdminRoleAuditor, ExpiresAt: sentAt.Add(time.Hour)}},
		{"codes", &Codes{Codes: []string{"0123-4567", "89AB-CDEF"}, ExpiresAt: sentAt.Add(72 * time.Hour)}},
		{"admin-account", &AdminAccount{AccountID: bob, Name: "bob", RootKey: public(rootKey), CreatedAt: sentAt, Disabled: true, Devices: twoDevices()}},
		{"channel-of-a-group", groupChannel()},
		{"channel-direct", directChannel()},
		{"channel-details", &ChannelDetails{Channel: *directChannel(), Members: []ChannelMember{{alice, RoleAdmin, 2}, {bob, RoleMember, 1}}}},
		{"channel-list", &ChannelList{Channels: []Channel{*directChannel()}, More: true}},
		{"channel-group-info", &ChannelGroupInfo{Generation: 1, Epoch: 7, GroupInfo: pattern(0x82, 210), RatchetTree: pattern(0x84, 300), Seq: 40}},
		{"generation-votes", &GenerationVotes{Votes: 2, Needed: 3}},
		{"commit", &CommitResponse{Seq: 43, Epoch: 8, AcceptedAt: sentAt, Duplicate: true}},
		{"contact-list", &ContactList{Contacts: []Contact{{Account{AccountID: bob, Name: "bob", RootKey: public(rootKey)}, ContactAsked, sentAt}}, More: true}},
	}
	var all []sample
	for i, r := range responses {
		all = append(all, sample{"response-" + r.name, Envelope{CorrelationID: uint64(i + 1), Body: r.body}})
	}
	return all
}

func pushAndErrorSamples() []sample {
	return []sample{
		{"push-deliver", Envelope{Body: &Delivery{ChannelID: dm, Seq: 42, PrevSeq: 41, Kind: KindCommit, Generation: 1,
			SenderAccountID: alice, SenderDeviceID: alicePhone, DeliveryID: deliveryID, AcceptedAt: sentAt.Add(20 * time.Millisecond),
			Payload: pattern(0x4e, 50), AboutChannelID: dm}}},
		{"push-caught-up", Envelope{Body: &CaughtUp{Deliveries: 17}}},
		{"push-key-packages-low", Envelope{Body: &KeyPackagesLow{OneTime: 9, LastResortExpiresAt: sentAt}}},
		{"push-behind", Envelope{Body: &Behind{ChannelID: dm, Seq: 40}}},
		{"push-go-away", Envelope{Body: &GoAway{Reason: GoAwaySessionReplaced, Grace: 5 * time.Second}}},
		{"error-busy", Envelope{CorrelationID: 1 << 63, Body: RetryAfterf(CodeBusy, 250*time.Millisecond, "the cell is busy; try again").
			With("queue", "enqueue").With("depth", "1024")}},
	}
}

// variants are messages that a sample with every field filled cannot show. They are captured too.
func variants() []sample {
	application := &Delivery{ChannelID: dm, Seq: 1, Generation: 1, SenderAccountID: alice, SenderDeviceID: alicePhone,
		DeliveryID: deliveryID, AcceptedAt: sentAt, Payload: pattern(0x4e, 50)}
	own, welcome, notice := *application, *application, *application
	notice.Kind, notice.ChannelID, notice.Payload = KindNotice, bobLaptop, noticeFrame(Notice{Kind: NoticeDeviceRevoked, AccountID: alice, DeviceID: alicePhone})
	own.Kind, own.Payload = KindOwn, nil
	welcome.Kind, welcome.ChannelID, welcome.AboutChannelID = KindWelcome, bobLaptop, dm
	return []sample{
		{"push-deliver-application", Envelope{Body: application}},
		{"push-deliver-notice", Envelope{Body: &notice}},
		{"response-device-link-waiting", Envelope{CorrelationID: 11, Body: &DeviceLink{Offer: pattern(0x71, 96), ExpiresAt: sentAt.Add(10 * time.Minute)}}},
		{"response-no-devices", Envelope{CorrelationID: 12, Body: &DeviceList{}}},
		{"request-admin-authenticate-by-certificate", Envelope{CorrelationID: 13, Body: &AdminAuthenticateRequest{}}},
		{"push-deliver-own", Envelope{Body: &own}},
		{"push-deliver-welcome", Envelope{Body: &welcome}},
		{"response-channel-without-group", Envelope{CorrelationID: 5, Body: &Channel{ChannelID: dm,
			Peer: Account{AccountID: bob, Name: "bob", RootKey: public(rootKey)}}}},
		{"response-enqueue-first", Envelope{CorrelationID: 16, Body: &EnqueueResponse{Seq: 42, AcceptedAt: sentAt.Add(20 * time.Millisecond)}}},
		{"response-key-package-status-none", Envelope{CorrelationID: 6, Body: &KeyPackageStatus{}}},
		{"response-recover-by-reset-code", Envelope{CorrelationID: 9, Body: &RecoverResponse{AccountID: alice, RootKey: public(rootKey)}}},
		{"request-set-no-recovery-codes", Envelope{CorrelationID: 10, Body: &SetRecoveryCodesRequest{}}},
		{"request-upload-one-last-resort", Envelope{CorrelationID: 7, Body: &UploadKeyPackagesRequest{LastResort: pattern(0x4a, 302)}}},
		{"error-invalid-argument", Envelope{CorrelationID: 8, Body: Errorf(CodeInvalidArgument, "proof has 63 bytes, it must have 64").With("field", "proof")}},
		{"error-connection", Envelope{Body: Errorf(CodeFrameTooLarge, "frame of 70000 bytes is above the limit of 65536").With("limit", "65536")}},
	}
}

// sampleOf returns a fresh sample body of a type, to be broken by a test.
func sampleOf[B any](t *testing.T) *B {
	t.Helper()
	for _, s := range samples() {
		if b, ok := s.env.Body.(any).(*B); ok {
			return b
		}
	}
	t.Fatalf("no sample of a %T", *new(B))
	return nil
}

func mustMarshal(t testing.TB, e Envelope) []byte {
	t.Helper()
	b, err := Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
