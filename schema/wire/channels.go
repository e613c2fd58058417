package wire

import (
	"time"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/ids"
)

// GetAccountRequest looks an account up, by name when Name is set, else by id.
type GetAccountRequest struct {
	Name      string
	AccountID ids.ID
}

// Method implements Request.
func (*GetAccountRequest) Method() string  { return "getAccount" }
func (r *GetAccountRequest) sizeHint() int { return len(r.Name) }

func (r *GetAccountRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewGetAccount, func(s schema.GetAccountRequest) error {
		if r.Name != "" {
			return s.SetName(r.Name)
		}
		return s.SetAccountId(r.AccountID[:])
	})
}

func decodeGetAccountRequest(s schema.GetAccountRequest) (*GetAccountRequest, error) {
	var d decoder
	switch s.Which() {
	case schema.GetAccountRequest_Which_name:
		return result(&d, &GetAccountRequest{Name: d.text("name", 1, MaxName)(s.Name())})
	case schema.GetAccountRequest_Which_accountId:
		return result(&d, &GetAccountRequest{AccountID: d.id("accountId")(s.AccountId())})
	}
	return nil, Errorf(CodeInvalidArgument, "an account is looked up by name or accountId")
}

// Account is what others see of an account.
type Account struct {
	AccountID ids.ID
	Name      string
	RootKey   []byte // Ed25519, 32 bytes.
}

func (r *Account) sizeHint() int { return len(r.Name) + len(r.RootKey) }

func (r *Account) encodeResponse(p schema.Response) error { return fill(p.NewAccount, r.encode) }

func (r *Account) encode(s schema.Account) error {
	return first(s.SetAccountId(r.AccountID[:]), s.SetName(r.Name), s.SetRootKey(r.RootKey))
}

func decodeAccount(s schema.Account) (*Account, error) {
	var d decoder
	return result(&d, &Account{AccountID: d.id("accountId")(s.AccountId()), Name: d.text("name", 1, MaxName)(s.Name()),
		RootKey: d.bytes("rootKey", 32, 32)(s.RootKey())})
}

// OpenDMRequest asks for the one channel between the caller's account and another.
type OpenDMRequest struct{ AccountID ids.ID }

// Method implements Request.
func (*OpenDMRequest) Method() string { return "openDm" }
func (*OpenDMRequest) sizeHint() int  { return 0 }

func (r *OpenDMRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewOpenDm, func(s schema.OpenDmRequest) error { return s.SetAccountId(r.AccountID[:]) })
}

func decodeOpenDMRequest(s schema.OpenDmRequest) (*OpenDMRequest, error) {
	var d decoder
	return result(&d, &OpenDMRequest{d.id("accountId")(s.AccountId())})
}

// Channel is a channel as a member account sees it.
type Channel struct {
	ChannelID  ids.ID
	Generation uint32  // 0: no MLS group yet.
	Peer       Account // The other side of a DM; zero for a group.
	LastSeq    uint64
	Kind       ChannelKind
	Epoch      uint64
	Role       ChannelRole   // The caller's; 0 of an older cell.
	Retention  time.Duration // Whole seconds on the wire; 0: the policy's.
	History    History
	Contact    ContactState // Of a DM's two accounts.
}

// The schema's own names.
type (
	// ChannelKind is what a channel is: for two, or for any number.
	ChannelKind = schema.ChannelKind
	// ChannelRole is what an account is in a channel.
	ChannelRole = schema.ChannelRole
	// History says whether messages are kept once every device has acknowledged them.
	History = schema.History
)

// The kinds, roles and ways to keep messages.
const (
	ChannelDirect = schema.ChannelKind_direct
	ChannelGroup  = schema.ChannelKind_group

	RoleMember    = schema.ChannelRole_member
	RoleModerator = schema.ChannelRole_moderator
	RoleAdmin     = schema.ChannelRole_admin

	HistoryPolicy = schema.History_policy
	HistoryOn     = schema.History_on
	HistoryOff    = schema.History_off
)

func (r *Channel) sizeHint() int { return 160 + r.Peer.sizeHint() }

func (r *Channel) encodeResponse(p schema.Response) error { return fill(p.NewChannel, r.encode) }

func (r *Channel) encode(s schema.Channel) error {
	s.SetGeneration(r.Generation)
	s.SetLastSeq(r.LastSeq)
	s.SetKind(r.Kind)
	s.SetEpoch(r.Epoch)
	s.SetRole(r.Role)
	s.SetRetentionSec(seconds(r.Retention))
	s.SetHistory(r.History)
	s.SetContact(r.Contact)
	if !r.Peer.AccountID.IsZero() {
		if err := fill(s.NewPeer, r.Peer.encode); err != nil {
			return err
		}
	}
	return s.SetChannelId(r.ChannelID[:])
}

func decodeChannel(s schema.Channel) (*Channel, error) {
	var d decoder
	r := &Channel{ChannelID: d.id("channelId")(s.ChannelId()), Generation: s.Generation(), LastSeq: s.LastSeq(), Kind: s.Kind(), Epoch: s.Epoch(),
		Role: s.Role(), Retention: time.Duration(s.RetentionSec()) * time.Second, History: s.History(), Contact: s.Contact()}
	if s.Kind() == ChannelDirect {
		peer, err := s.Peer()
		if err != nil {
			return nil, err
		}
		account, err := decodeAccount(peer)
		if err != nil {
			return nil, err
		}
		r.Peer = *account
	}
	return result(&d, r)
}

// CreateGroupRequest creates the MLS group of a channel's next generation; the first creator wins.
type CreateGroupRequest struct {
	ChannelID  ids.ID
	Generation uint32
	GroupInfo  []byte
	Welcomes   []DeviceWelcome
}

// DeviceWelcome is the Welcome for one device.
type DeviceWelcome struct {
	DeviceID ids.ID
	Welcome  []byte
}

// Method implements Request.
func (*CreateGroupRequest) Method() string { return "createGroup" }
func (r *CreateGroupRequest) sizeHint() int {
	return len(r.GroupInfo) + welcomes(r.Welcomes).sizeHint()
}

func (r *CreateGroupRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewCreateGroup, func(s schema.CreateGroupRequest) error {
		s.SetGeneration(r.Generation)
		return first(welcomes(r.Welcomes).encode(s.NewWelcomes), s.SetChannelId(r.ChannelID[:]), s.SetGroupInfo(r.GroupInfo))
	})
}

func decodeCreateGroupRequest(s schema.CreateGroupRequest) (*CreateGroupRequest, error) {
	var d decoder
	return result(&d, &CreateGroupRequest{ChannelID: d.id("channelId")(s.ChannelId()), Generation: d.generation(s.Generation()),
		GroupInfo: d.bytes("groupInfo", 1, MaxGroupInfo)(s.GroupInfo()), Welcomes: d.welcomes(s.Welcomes())})
}

// generation takes any but 0, which is none.
func (d *decoder) generation(n uint32) uint32 {
	if n == 0 {
		d.fail(Errorf(CodeInvalidArgument, "generations start at 1").With("field", "generation"))
	}
	return n
}

type welcomes []DeviceWelcome

func (list welcomes) sizeHint() int {
	n := 0
	for _, w := range list {
		n += len(w.Welcome) + 64
	}
	return n
}

func (list welcomes) encode(create func(int32) (schema.DeviceWelcome_List, error)) error {
	l, err := create(int32(len(list))) //nolint:gosec // at most 1,024.
	if err != nil {
		return err
	}
	for i, w := range list {
		if err := first(l.At(i).SetDeviceId(w.DeviceID[:]), l.At(i).SetWelcome(w.Welcome)); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) welcomes(l schema.DeviceWelcome_List, err error) []DeviceWelcome {
	if err != nil {
		d.fail(err)
		return nil
	}
	var list []DeviceWelcome
	for i := range d.count("welcomes", l.Len(), MaxWelcomes) {
		w := l.At(i)
		list = append(list, DeviceWelcome{DeviceID: d.id("deviceId")(w.DeviceId()), Welcome: d.bytes("welcome", 1, MaxWelcome)(w.Welcome())})
	}
	return list
}

// CreateGroupResponse tells the winner where the new generation starts.
type CreateGroupResponse struct{ StartSeq uint64 }

func (*CreateGroupResponse) sizeHint() int { return 0 }

func (r *CreateGroupResponse) encodeResponse(p schema.Response) error {
	return fill(p.NewCreateGroup, func(s schema.CreateGroupResponse) error {
		s.SetStartSeq(r.StartSeq)
		return nil
	})
}

func decodeCreateGroupResponse(s schema.CreateGroupResponse) (*CreateGroupResponse, error) {
	return &CreateGroupResponse{s.StartSeq()}, nil
}
