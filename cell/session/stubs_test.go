package session

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"quicproquo.dev/cell/delivery"
	"quicproquo.dev/cell/identity"
	"quicproquo.dev/cell/limits"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/cell/telemetry"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

var (
	account = ids.ID{0xa}
	phone   = ids.ID{0xb}
	channel = ids.ID{0xc}
)

// stubs stand for everything behind a session. A method that has no behavior of its own succeeds at once.
type stubs struct {
	calls  atomic.Int64 // Calls that any method got.
	status func(ctx context.Context) error
	claim  func() *wire.ClaimKeyPackagesResponse
	create func(ctx context.Context) error
	ttl    atomic.Int64 // Of tokens, as time.Duration; 0: an hour.
	panics atomic.Bool  // In Authenticate.
	stored []*store.Message

	mu sync.Mutex
}

var errNobody = wire.Errorf(wire.CodeInvalidCredentials, "nobody")

func (s *stubs) principal() identity.Principal {
	ttl := time.Duration(s.ttl.Load())
	if ttl == 0 {
		ttl = time.Hour
	}
	return identity.Principal{AccountID: account, DeviceID: phone, ExpiresAt: time.Now().Add(ttl)}
}

func (s *stubs) SignupStart(context.Context, *wire.SignupStartRequest) (*wire.SignupStartResponse, error) {
	s.calls.Add(1)
	return &wire.SignupStartResponse{RegistrationResponse: make([]byte, 64)}, nil
}

func (s *stubs) SignupFinish(context.Context, *wire.SignupFinishRequest, []byte) (*wire.Session, identity.Principal, error) {
	s.calls.Add(1)
	return session(), s.principal(), nil
}

func session() *wire.Session {
	return &wire.Session{AccessToken: []byte("access"), RefreshToken: []byte("refresh")}
}

func (s *stubs) LoginStart(context.Context, *wire.LoginStartRequest, []byte) (*wire.LoginStartResponse, *identity.Login, error) {
	s.calls.Add(1)
	return &wire.LoginStartResponse{KE2: make([]byte, 320)}, &identity.Login{}, nil
}

func (s *stubs) LoginFinish(context.Context, *identity.Login, *wire.LoginFinishRequest) (*wire.LoginFinishResponse, error) {
	s.calls.Add(1)
	return nil, errNobody
}

func (s *stubs) SetPasswordStart(*identity.Login, *wire.SetPasswordStartRequest) (*wire.SignupStartResponse, error) {
	s.calls.Add(1)
	return &wire.SignupStartResponse{RegistrationResponse: make([]byte, 64)}, nil
}

func (s *stubs) SetPasswordFinish(context.Context, *identity.Login, *wire.SetPasswordFinishRequest, ids.ID) (*wire.Done, error) {
	s.calls.Add(1)
	return &wire.Done{}, nil
}

func (s *stubs) Recover(context.Context, *wire.RecoverRequest, []byte) (*wire.RecoverResponse, *identity.Login, error) {
	s.calls.Add(1)
	return nil, nil, errNobody
}

func (s *stubs) SetRecoveryCodes(context.Context, *identity.Login, *wire.SetRecoveryCodesRequest, ids.ID) (*wire.Done, error) {
	s.calls.Add(1)
	return &wire.Done{}, nil
}

func (s *stubs) ResetAccount(context.Context, *identity.Login, *wire.ResetAccountRequest, []byte) (*wire.Session, identity.Principal, error) {
	s.calls.Add(1)
	return session(), s.principal(), nil
}

func (s *stubs) EndSession(context.Context, identity.Principal) (*wire.Done, error) {
	s.calls.Add(1)
	return &wire.Done{}, nil
}

func (s *stubs) ListDevices(context.Context, identity.Principal) (*wire.DeviceList, error) {
	s.calls.Add(1)
	return &wire.DeviceList{}, nil
}

func (s *stubs) RenameDevice(context.Context, identity.Principal, *wire.RenameDeviceRequest) (*wire.Done, error) {
	s.calls.Add(1)
	return &wire.Done{}, nil
}

func (s *stubs) RevokeDevice(context.Context, identity.Principal, *identity.Login, *wire.RevokeDeviceRequest) (*wire.Done, error) {
	s.calls.Add(1)
	return &wire.Done{}, nil
}

func (s *stubs) StartDeviceLink(context.Context, *wire.StartDeviceLinkRequest) (*wire.DeviceLink, error) {
	s.calls.Add(1)
	return &wire.DeviceLink{Offer: []byte("offer")}, nil
}

func (s *stubs) GetDeviceLink(context.Context, *wire.GetDeviceLinkRequest) (*wire.DeviceLink, error) {
	s.calls.Add(1)
	return &wire.DeviceLink{Offer: []byte("offer")}, nil
}

func (s *stubs) ApproveDeviceLink(context.Context, identity.Principal, *identity.Login, *wire.ApproveDeviceLinkRequest) (*wire.Done, error) {
	s.calls.Add(1)
	return &wire.Done{}, nil
}

func (s *stubs) FinishDeviceLink(context.Context, *wire.FinishDeviceLinkRequest, []byte) (*wire.Session, identity.Principal, error) {
	s.calls.Add(1)
	return session(), s.principal(), nil
}

func (s *stubs) StartSession(_ context.Context, l *identity.Login, _ *wire.StartSessionRequest, _ []byte) (*wire.Session, identity.Principal, error) {
	s.calls.Add(1)
	if l == nil {
		return nil, identity.Principal{}, wire.Errorf(wire.CodeUnauthenticated, "log in")
	}
	return session(), s.principal(), nil
}

func (s *stubs) Refresh(context.Context, *wire.RefreshSessionRequest, []byte) (*wire.Session, identity.Principal, error) {
	s.calls.Add(1)
	return session(), s.principal(), nil
}

func (*stubs) Abandoned(*identity.Login) {}

func (s *stubs) Authenticate(_ context.Context, _ *wire.AuthenticateRequest, _ []byte) (identity.Principal, error) {
	s.calls.Add(1)
	if s.panics.Load() {
		panic("in the reader")
	}
	return s.principal(), nil
}

func (s *stubs) Upload(ctx context.Context, p identity.Principal, _ *wire.UploadKeyPackagesRequest) (*wire.KeyPackageStatus, error) {
	return s.Status(ctx, p)
}

func (s *stubs) Status(ctx context.Context, _ identity.Principal) (*wire.KeyPackageStatus, error) {
	s.calls.Add(1)
	if s.status != nil {
		if err := s.status(ctx); err != nil {
			return nil, err
		}
	}
	return &wire.KeyPackageStatus{}, nil
}

func (s *stubs) Claim(context.Context, identity.Principal, *wire.ClaimKeyPackagesRequest) (*wire.ClaimKeyPackagesResponse, error) {
	s.calls.Add(1)
	if s.claim != nil {
		return s.claim(), nil
	}
	return &wire.ClaimKeyPackagesResponse{}, nil
}

func (s *stubs) GetAccount(context.Context, *wire.GetAccountRequest) (*wire.Account, error) {
	s.calls.Add(1)
	return nil, store.ErrNotFound
}

func (s *stubs) OpenDM(context.Context, identity.Principal, *wire.OpenDMRequest) (*wire.Channel, error) {
	s.calls.Add(1)
	return nil, errors.New("an error without a code")
}

func (s *stubs) OpenGroup(context.Context, identity.Principal, *wire.OpenGroupRequest) (*wire.Channel, error) {
	s.calls.Add(1)
	return &wire.Channel{ChannelID: channel, Kind: wire.ChannelGroup}, nil
}

func (s *stubs) GetChannel(context.Context, identity.Principal, *wire.GetChannelRequest) (*wire.ChannelDetails, error) {
	s.calls.Add(1)
	return nil, store.ErrNotFound
}

func (s *stubs) ListChannels(context.Context, identity.Principal, *wire.ListChannelsRequest) (*wire.ChannelList, error) {
	s.calls.Add(1)
	return &wire.ChannelList{}, nil
}

func (s *stubs) SetRole(context.Context, identity.Principal, *wire.SetRoleRequest) (*wire.Done, error) {
	s.calls.Add(1)
	return &wire.Done{}, nil
}

func (s *stubs) SetRetention(context.Context, identity.Principal, *wire.SetRetentionRequest) (*wire.Done, error) {
	s.calls.Add(1)
	return &wire.Done{}, nil
}

func (s *stubs) GetGroupInfo(context.Context, identity.Principal, *wire.GetGroupInfoRequest) (*wire.ChannelGroupInfo, error) {
	s.calls.Add(1)
	return nil, store.ErrNotFound
}

func (s *stubs) VoteGeneration(context.Context, identity.Principal, *wire.VoteGenerationRequest) (*wire.GenerationVotes, error) {
	s.calls.Add(1)
	return &wire.GenerationVotes{}, nil
}

func (s *stubs) Commit(context.Context, identity.Principal, *wire.CommitRequest) (*wire.CommitResponse, error) {
	s.calls.Add(1)
	return &wire.CommitResponse{}, nil
}

func (s *stubs) Propose(context.Context, identity.Principal, *wire.ProposeRequest) (*wire.EnqueueResponse, error) {
	s.calls.Add(1)
	return &wire.EnqueueResponse{}, nil
}

func (s *stubs) ListContacts(context.Context, identity.Principal, *wire.ListContactsRequest) (*wire.ContactList, error) {
	s.calls.Add(1)
	return &wire.ContactList{}, nil
}

func (s *stubs) AcceptContact(context.Context, identity.Principal, *wire.AcceptContactRequest) (*wire.Done, error) {
	s.calls.Add(1)
	return &wire.Done{}, nil
}

func (s *stubs) BlockAccount(context.Context, identity.Principal, *wire.BlockAccountRequest) (*wire.Done, error) {
	s.calls.Add(1)
	return &wire.Done{}, nil
}

func (s *stubs) CreateGroup(ctx context.Context, _ identity.Principal, _ *wire.CreateGroupRequest) (*wire.CreateGroupResponse, error) {
	s.calls.Add(1)
	if s.create != nil {
		if err := s.create(ctx); err != nil {
			return nil, err
		}
	}
	return &wire.CreateGroupResponse{}, nil
}

func (s *stubs) AppendBatch(_ context.Context, batch []*store.Append) error {
	for i, a := range batch {
		switch i % 3 { // What the store may say of a message.
		case 0:
			a.Message.Seq = 1
		case 1:
			a.Err = store.ErrNotFound
		case 2:
			a.Err = store.ErrOtherGeneration
		}
	}
	return nil
}

func (s *stubs) ReadMessages(_ context.Context, c ids.ID, after uint64, _, _ int, _ time.Time) ([]*store.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c != channel || after >= uint64(len(s.stored)) {
		return nil, nil
	}
	return s.stored[after:], nil
}

func (s *stubs) Cursors(_ context.Context, device ids.ID) ([]store.Cursor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return []store.Cursor{{ChannelID: device}, {ChannelID: channel, LastSeq: uint64(len(s.stored))}}, nil
}

func (s *stubs) LowKeyPackages(context.Context, []ids.ID) (map[ids.ID]store.KeyPackagesLeft, error) {
	return nil, nil
}

func (s *stubs) CursorOf(context.Context, ids.ID, ids.ID) (store.Cursor, error) {
	return store.Cursor{}, nil
}

func (s *stubs) BeginSubscription(context.Context, ids.ID) (uint64, error) { return 1, nil }

func (s *stubs) Subscriptions(context.Context, []ids.ID) (map[ids.ID]uint64, error) { return nil, nil }

func (s *stubs) ChannelCounts(context.Context, []ids.ID) (map[ids.ID]int, error) { return nil, nil }

func (s *stubs) LastSeqs(context.Context, []ids.ID) (map[ids.ID]uint64, error) { return nil, nil }

func (s *stubs) Acknowledge(context.Context, []store.Ack) error { return nil }

// services are a cell's, with stubs behind them. The Hub does not run: nothing is polled.
func services(s *stubs) (*Services, func()) {
	m, log := telemetry.New(), slog.New(slog.DiscardHandler)
	hub := delivery.NewHub(s, m, log, time.Now)
	lane := delivery.NewLane(s, m, log, time.Now, hub.Announce)
	rules := policy.Default()
	rules.Limits.RequestsPerSecond, rules.Limits.RequestBurst = 100_000, 200_000 // Tests of limits have lower ones.
	rules.Limits.LoginsPerMinute = 600_000
	v := &Services{Identity: s, Keys: s, Channels: s, Lane: lane, Hub: hub, Cell: store.Cell{ID: ids.New(), RestoreEpoch: 1},
		Policy: func() *policy.Policy { return rules }, Metrics: m, Log: log, Now: time.Now, Server: "cell test", Logins: NewLoginGate()}
	v.Limits = limits.New(func() *policy.Policy { return v.Policy() }, time.Now)
	return v, lane.Close
}
