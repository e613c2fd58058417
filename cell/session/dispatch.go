package session

import (
	"context"
	"errors"
	"strconv"
	"time"

	"quicproquo.dev/cell/channels"
	"quicproquo.dev/cell/delivery"
	"quicproquo.dev/cell/identity"
	"quicproquo.dev/cell/mlspolicy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema"
	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/wire"
)

// answer replies to one request, once.
type answer func(wire.Response, error)

// dispatch runs one request. What must keep the client's order runs here; the rest beside the reader.
func (s *Session) dispatch(request wire.Request, reply answer) {
	if err := s.permit(request); err != nil {
		reply(nil, err)
		return
	}
	switch r := request.(type) {
	case *wire.HelloRequest:
		reply(s.hello(r))
	case *wire.SignupStartRequest, *wire.SignupFinishRequest, *wire.LoginStartRequest, *wire.LoginFinishRequest,
		*wire.StartSessionRequest, *wire.RefreshSessionRequest, *wire.AuthenticateRequest,
		*wire.SetPasswordStartRequest, *wire.SetPasswordFinishRequest, *wire.RecoverRequest, *wire.SetRecoveryCodesRequest, *wire.ResetAccountRequest,
		*wire.StartDeviceLinkRequest, *wire.GetDeviceLinkRequest, *wire.FinishDeviceLinkRequest, *wire.ApproveDeviceLinkRequest, *wire.RevokeDeviceRequest,
		*wire.DeleteAccountRequest:
		start := s.Now()
		body, err := s.authenticate(r)
		s.Metrics.AuthLatency.WithLabelValues(request.Method()).Observe(s.Now().Sub(start).Seconds())
		reply(body, err)
	case *wire.AdminAuthenticateRequest, *wire.AdminInviteRequest, *wire.AdminResetCodeRequest, *wire.AdminGetAccountRequest, *wire.AdminSetDisabledRequest,
		*wire.AdminRevokeDeviceRequest, *wire.AdminEndSessionsRequest, *wire.AdminDeleteAccountRequest, *wire.AdminExportAuditRequest:
		s.dispatchAdmin(request, reply)
	default:
		p, err := s.whoami()
		if err != nil {
			reply(nil, err)
			return
		}
		s.dispatchAs(p, request, reply)
	}
}

// dispatchAs runs a request of an authenticated device.
func (s *Session) dispatchAs(p identity.Principal, request wire.Request, reply answer) {
	switch r := request.(type) {
	case *wire.EnqueueRequest:
		if err := s.enqueue(p, r, reply); err != nil {
			reply(nil, err)
		}
	case *wire.SubscribeRequest:
		reply(s.subscribe(p, r))
	case *wire.AckRequest:
		reply(s.ack(r))
	case *wire.EndSessionRequest:
		beside(s, reply, func(ctx context.Context) (*wire.Done, error) { return s.Identity.EndSession(ctx, p) })
	case *wire.ListDevicesRequest:
		beside(s, reply, func(ctx context.Context) (*wire.DeviceList, error) { return s.Identity.ListDevices(ctx, p) })
	case *wire.RenameDeviceRequest:
		beside(s, reply, func(ctx context.Context) (*wire.Done, error) { return s.Identity.RenameDevice(ctx, p, r) })
	case *wire.ExportAccountRequest:
		beside(s, reply, func(ctx context.Context) (*wire.ExportPage, error) { return s.Identity.ExportAccount(ctx, p, r) })
	case *wire.UploadKeyPackagesRequest:
		beside(s, reply, func(ctx context.Context) (*wire.KeyPackageStatus, error) { return s.Keys.Upload(ctx, p, r) })
	case *wire.KeyPackageStatusRequest:
		beside(s, reply, func(ctx context.Context) (*wire.KeyPackageStatus, error) { return s.Keys.Status(ctx, p) })
	case *wire.ClaimKeyPackagesRequest:
		beside(s, reply, func(ctx context.Context) (*wire.ClaimKeyPackagesResponse, error) { return s.Keys.Claim(ctx, p, r) })
	case *wire.GetAccountRequest:
		beside(s, reply, func(ctx context.Context) (*wire.Account, error) { return s.Channels.GetAccount(ctx, r) })
	case *wire.OpenDMRequest:
		beside(s, reply, func(ctx context.Context) (*wire.Channel, error) { return s.Channels.OpenDM(ctx, p, r) })
	case *wire.CreateGroupRequest:
		beside(s, reply, func(ctx context.Context) (*wire.CreateGroupResponse, error) { return s.Channels.CreateGroup(ctx, p, r) })
	default:
		s.dispatchGroups(p, request, reply)
	}
}

// dispatchGroups runs what is about groups and contacts.
func (s *Session) dispatchGroups(p identity.Principal, request wire.Request, reply answer) {
	switch r := request.(type) {
	case *wire.OpenGroupRequest:
		beside(s, reply, func(ctx context.Context) (*wire.Channel, error) { return s.Channels.OpenGroup(ctx, p, r) })
	case *wire.GetChannelRequest:
		beside(s, reply, func(ctx context.Context) (*wire.ChannelDetails, error) { return s.Channels.GetChannel(ctx, p, r) })
	case *wire.ListChannelsRequest:
		beside(s, reply, func(ctx context.Context) (*wire.ChannelList, error) { return s.Channels.ListChannels(ctx, p, r) })
	case *wire.SetRoleRequest:
		beside(s, reply, func(ctx context.Context) (*wire.Done, error) { return s.Channels.SetRole(ctx, p, r) })
	case *wire.SetRetentionRequest:
		beside(s, reply, func(ctx context.Context) (*wire.Done, error) { return s.Channels.SetRetention(ctx, p, r) })
	case *wire.GetGroupInfoRequest:
		beside(s, reply, func(ctx context.Context) (*wire.ChannelGroupInfo, error) { return s.Channels.GetGroupInfo(ctx, p, r) })
	case *wire.VoteGenerationRequest:
		beside(s, reply, func(ctx context.Context) (*wire.GenerationVotes, error) { return s.Channels.VoteGeneration(ctx, p, r) })
	case *wire.CommitRequest:
		beside(s, reply, func(ctx context.Context) (*wire.CommitResponse, error) { return s.Channels.Commit(ctx, p, r) })
	case *wire.ProposeRequest:
		beside(s, reply, func(ctx context.Context) (*wire.EnqueueResponse, error) { return s.Channels.Propose(ctx, p, r) })
	case *wire.ListContactsRequest:
		beside(s, reply, func(ctx context.Context) (*wire.ContactList, error) { return s.Channels.ListContacts(ctx, p, r) })
	case *wire.AcceptContactRequest:
		beside(s, reply, func(ctx context.Context) (*wire.Done, error) { return s.Channels.AcceptContact(ctx, p, r) })
	case *wire.BlockAccountRequest:
		beside(s, reply, func(ctx context.Context) (*wire.Done, error) { return s.Channels.BlockAccount(ctx, p, r) })
	default:
		reply(nil, wire.Errorf(wire.CodeUnknownMethod, "method %s is not served here", request.Method()))
	}
}

// callPatience bounds a call that waits for the database.
const callPatience = 10 * time.Second

// beside runs a call beside the reader. When too many run already, the reader waits, and so does the client.
func beside[R wire.Response](s *Session, reply answer, call func(context.Context) (R, error)) {
	if !s.awaitCall() {
		reply(nil, wire.RetryAfterf(wire.CodeDraining, 0, "the connection is closing"))
		return
	}
	s.goGuarded(func() {
		defer func() { <-s.calls }()
		ctx, cancel := context.WithTimeout(s.ctx, callPatience)
		defer cancel()
		reply(response(call(ctx)))
	})
}

func (s *Session) awaitCall() bool {
	select {
	case s.calls <- struct{}{}:
		return true
	default:
	}
	defer s.held("calls")()
	select {
	case s.calls <- struct{}{}:
		return true
	case <-s.ctx.Done():
		return false
	}
}

func (s *Session) hello(r *wire.HelloRequest) (wire.Response, error) {
	if r.MinVersion > schema.Version || r.MaxVersion < schema.Version {
		return nil, wire.Errorf(wire.CodeUnsupportedVersion, "this cell speaks schema version %d, the client %d to %d; update the older of the two",
			schema.Version, r.MinVersion, r.MaxVersion).With("supported", strconv.Itoa(schema.Version))
	}
	p := s.Policy()
	return &wire.HelloResponse{Server: s.Server, Version: schema.Version, CellID: s.Cell.ID, RestoreEpoch: s.Cell.RestoreEpoch,
		ServerTime: s.Now(), MaxControlFrame: frame.ControlLimit, MaxPayload: uint32(p.Limits.MaxPayloadBytes), //nolint:gosec // policy bounds it.
		CipherSuites:       []uint16{uint16(mls.SuiteX25519AES128GCMSHA256Ed25519)},
		KeyPackageLifetime: time.Duration(p.MLS.KeyPackageLifetime), LastResortLifetime: time.Duration(p.MLS.LastResortLifetime),
		MaxKeyPackages: uint16(p.MLS.MaxKeyPackagesPerDevice)}, nil //nolint:gosec // policy bounds it.
}

// enqueue checks a message and hands it to the lane; its answer comes from there.
func (s *Session) enqueue(p identity.Principal, r *wire.EnqueueRequest, reply answer) error {
	rules := s.Policy()
	if limit := rules.Limits.MaxPayloadBytes; len(r.Payload) > limit {
		return wire.PayloadTooLarge(len(r.Payload), limit)
	}
	now := s.Now()
	idTime, err := delivery.CheckDeliveryID(r.DeliveryID, now, time.Duration(rules.Retention.DedupWindow))
	if err != nil {
		return err
	}
	epoch, err := mlspolicy.Application(r.Payload, r.ChannelID, r.Generation, r.DeliveryID)
	if err != nil {
		return err
	}
	admit, withdraw := s.quota(r)
	entry := &store.Append{IDTime: idTime, Admit: admit, Withdraw: withdraw, Message: store.Message{ChannelID: r.ChannelID, Kind: store.MessageApplication,
		Generation: r.Generation, Epoch: epoch, SenderAccount: p.AccountID, SenderID: p.DeviceID, DeliveryID: r.DeliveryID,
		AcceptedAt: now, ExpiresAt: now.Add(time.Duration(rules.Retention.Messages)), Payload: r.Payload}}
	return s.Lane.Submit(entry, func(a *store.Append, err error) { reply(s.enqueued(a, err)) })
}

// quota charges a message to its account once, when the store has found that it is no duplicate: a retry of what is
// stored is answered, whatever was spent since.
func (s *Session) quota(r *wire.EnqueueRequest) (admit func() error, withdraw func()) {
	charged := false
	admit = func() error {
		if charged {
			return nil
		}
		v := s.Limits.Message(r.ChannelID)
		if v.By == "" {
			if v = s.limits.Quota(r); v.By != "" {
				s.Limits.WithdrawMessage(r.ChannelID) // What an account may not send takes nothing from the others.
			}
		}
		if v.By != "" {
			s.Metrics.Limited.WithLabelValues(v.By).Inc()
			return v.Err()
		}
		charged = true
		return nil
	}
	withdraw = func() {
		if charged {
			charged = false
			s.limits.WithdrawQuota(r)
			s.Limits.WithdrawMessage(r.ChannelID)
		}
	}
	return admit, withdraw
}

func (s *Session) enqueued(a *store.Append, err error) (wire.Response, error) {
	if err == nil {
		err = a.Err
	}
	switch {
	case err == nil:
		return &wire.EnqueueResponse{Seq: a.Message.Seq, AcceptedAt: a.Message.AcceptedAt, Duplicate: a.Duplicate}, nil
	case errors.Is(err, store.ErrNotFound):
		return nil, wire.Errorf(wire.CodeNotFound, "there is no channel %s that this device may write to", a.Message.ChannelID)
	case errors.Is(err, store.ErrOtherGeneration):
		return nil, wire.Errorf(wire.CodeEpochConflict, "the channel is at another generation than %d; catch up and encrypt again", a.Message.Generation)
	}
	return nil, channels.Refusal(err, s.Policy(), a.Message.ChannelID, a.Message.DeliveryID)
}

// subscribe starts the device's stream on this connection; it ends with the connection, or when a newer one starts.
func (s *Session) subscribe(p identity.Principal, r *wire.SubscribeRequest) (wire.Response, error) {
	most := s.Policy().Limits.MaxInFlightPerDevice
	credit := int(r.Credit)
	if credit == 0 || credit > most {
		credit = most
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sub != nil {
		return nil, wire.Errorf(wire.CodeAlreadyExists, "this connection is subscribed already")
	}
	sub := s.Hub.Subscribe(p.DeviceID, credit, pusher{s})
	if r.Notices {
		sub.WithNotices()
	}
	s.sub = sub
	s.goGuarded(func() { s.runSubscription(sub, p) })
	return &wire.SubscribeResponse{RestoreEpoch: s.Cell.RestoreEpoch, Credit: uint16(credit)}, nil //nolint:gosec // at most 4096.
}

// pusher is a session's delivery.Pusher. Once something was revoked it gives nothing more.
type pusher struct{ s *Session }

// Push implements delivery.Pusher.
func (p pusher) Push(ctx context.Context, b wire.Push) error {
	if p.s.isRevoked() {
		<-ctx.Done() // The session is about to end, with its reason.
		return ctx.Err()
	}
	return p.s.push(ctx, b)
}

// TryPush implements delivery.Pusher.
func (p pusher) TryPush(b wire.Push) bool {
	return !p.s.isRevoked() && p.s.tryPush(b)
}

// runSubscription pushes until the session ends. A subscription that ends by itself takes the session with it: the
// client would wait for deliveries in vain.
func (s *Session) runSubscription(sub *delivery.Subscription, p identity.Principal) {
	err := sub.Run(s.ctx)
	switch {
	case errors.Is(err, delivery.ErrReplaced):
		s.GoAway(wire.GoAwaySessionReplaced, replacedGrace)
	case s.ctx.Err() == nil:
		s.log.WarnContext(s.ctx, "subscription ends", "device", p.DeviceID, "error", err)
		s.end(CloseDone, "the subscription failed; connect again")
	}
}

func (s *Session) ack(r *wire.AckRequest) (wire.Response, error) {
	s.mu.Lock()
	sub := s.sub
	s.mu.Unlock()
	if sub == nil {
		return nil, wire.Errorf(wire.CodeInvalidCursor, "subscribe on this connection before acknowledging")
	}
	if err := sub.Ack(r.Acks); err != nil {
		return nil, err
	}
	return &wire.Done{}, nil
}
