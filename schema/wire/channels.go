package wire

import (
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
	Generation uint32 // 0: no MLS group yet.
	Peer       Account
	LastSeq    uint64
}

func (r *Channel) sizeHint() int { return r.Peer.sizeHint() }

func (r *Channel) encodeResponse(p schema.Response) error {
	return fill(p.NewChannel, func(s schema.Channel) error {
		s.SetGeneration(r.Generation)
		s.SetLastSeq(r.LastSeq)
		return first(s.SetChannelId(r.ChannelID[:]), fill(s.NewPeer, r.Peer.encode))
	})
}

func decodeChannel(s schema.Channel) (*Channel, error) {
	var d decoder
	peer, err := s.Peer()
	if err != nil {
		return nil, err
	}
	account, err := decodeAccount(peer)
	if err != nil {
		return nil, err
	}
	return result(&d, &Channel{ChannelID: d.id("channelId")(s.ChannelId()), Generation: s.Generation(), Peer: *account, LastSeq: s.LastSeq()})
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
	n := len(r.GroupInfo)
	for _, w := range r.Welcomes {
		n += len(w.Welcome) + 64
	}
	return n
}

func (r *CreateGroupRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewCreateGroup, func(s schema.CreateGroupRequest) error {
		s.SetGeneration(r.Generation)
		list, err := s.NewWelcomes(int32(len(r.Welcomes))) //nolint:gosec // at most 1,024.
		if err != nil {
			return err
		}
		for i, w := range r.Welcomes {
			if err := first(list.At(i).SetDeviceId(w.DeviceID[:]), list.At(i).SetWelcome(w.Welcome)); err != nil {
				return err
			}
		}
		return first(s.SetChannelId(r.ChannelID[:]), s.SetGroupInfo(r.GroupInfo))
	})
}

func decodeCreateGroupRequest(s schema.CreateGroupRequest) (*CreateGroupRequest, error) {
	var d decoder
	r := &CreateGroupRequest{ChannelID: d.id("channelId")(s.ChannelId()), Generation: s.Generation(),
		GroupInfo: d.bytes("groupInfo", 1, MaxGroupInfo)(s.GroupInfo())}
	if r.Generation == 0 {
		d.fail(Errorf(CodeInvalidArgument, "generations start at 1").With("field", "generation"))
	}
	list, err := s.Welcomes()
	if err != nil {
		return nil, err
	}
	for i := range d.count("welcomes", list.Len(), MaxWelcomes) {
		w := list.At(i)
		r.Welcomes = append(r.Welcomes, DeviceWelcome{DeviceID: d.id("deviceId")(w.DeviceId()), Welcome: d.bytes("welcome", 1, MaxWelcome)(w.Welcome())})
	}
	return result(&d, r)
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
