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
	}
	var all []sample
	for i, r := range requests {
		all = append(all, sample{"request-" + r.name, Envelope{CorrelationID: uint64(i + 1), Body: r.body}})
	}
	return all
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
		{"push-go-away", Envelope{Body: &GoAway{Reason: GoAwaySessionReplaced, Grace: 5 * time.Second}}},
		{"error-busy", Envelope{CorrelationID: 1 << 63, Body: RetryAfterf(CodeBusy, 250*time.Millisecond, "the cell is busy; try again").
			With("queue", "enqueue").With("depth", "1024")}},
	}
}

// variants are messages that a sample with every field filled cannot show. They are captured too.
func variants() []sample {
	application := &Delivery{ChannelID: dm, Seq: 1, Generation: 1, SenderAccountID: alice, SenderDeviceID: alicePhone,
		DeliveryID: deliveryID, AcceptedAt: sentAt, Payload: pattern(0x4e, 50)}
	own, welcome := *application, *application
	own.Kind, own.Payload = KindOwn, nil
	welcome.Kind, welcome.ChannelID, welcome.AboutChannelID = KindWelcome, bobLaptop, dm
	return []sample{
		{"push-deliver-application", Envelope{Body: application}},
		{"push-deliver-own", Envelope{Body: &own}},
		{"push-deliver-welcome", Envelope{Body: &welcome}},
		{"response-channel-without-group", Envelope{CorrelationID: 5, Body: &Channel{ChannelID: dm,
			Peer: Account{AccountID: bob, Name: "bob", RootKey: public(rootKey)}}}},
		{"response-enqueue-first", Envelope{CorrelationID: 16, Body: &EnqueueResponse{Seq: 42, AcceptedAt: sentAt.Add(20 * time.Millisecond)}}},
		{"response-key-package-status-none", Envelope{CorrelationID: 6, Body: &KeyPackageStatus{}}},
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
