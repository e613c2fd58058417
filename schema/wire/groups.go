package wire

import (
	"time"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/ids"
)

// OpenGroupRequest opens a channel of any number of accounts. It is answered by a Channel.
type OpenGroupRequest struct{ ChannelID ids.ID }

// Method implements Request.
func (*OpenGroupRequest) Method() string { return "openGroup" }
func (*OpenGroupRequest) sizeHint() int  { return 0 }

func (r *OpenGroupRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewOpenGroup, func(s schema.OpenGroupRequest) error { return s.SetChannelId(r.ChannelID[:]) })
}

func decodeOpenGroupRequest(s schema.OpenGroupRequest) (*OpenGroupRequest, error) {
	var d decoder
	return result(&d, &OpenGroupRequest{d.id("channelId")(s.ChannelId())})
}

// GetChannelRequest asks for a channel with its members. It is answered by ChannelDetails.
type GetChannelRequest struct{ ChannelID ids.ID }

// Method implements Request.
func (*GetChannelRequest) Method() string { return "getChannel" }
func (*GetChannelRequest) sizeHint() int  { return 0 }

func (r *GetChannelRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewGetChannel, func(s schema.GetChannelRequest) error { return s.SetChannelId(r.ChannelID[:]) })
}

func decodeGetChannelRequest(s schema.GetChannelRequest) (*GetChannelRequest, error) {
	var d decoder
	return result(&d, &GetChannelRequest{d.id("channelId")(s.ChannelId())})
}

// ChannelDetails is a channel with its members.
type ChannelDetails struct {
	Channel Channel
	Members []ChannelMember
}

// ChannelMember is an account in a channel.
type ChannelMember struct {
	AccountID ids.ID
	Role      ChannelRole
	Devices   uint16 // In the MLS group.
}

func (r *ChannelDetails) sizeHint() int { return r.Channel.sizeHint() + 48*len(r.Members) }

func (r *ChannelDetails) encodeResponse(p schema.Response) error {
	return fill(p.NewChannelDetails, func(s schema.ChannelDetails) error {
		if err := fill(s.NewChannel, r.Channel.encode); err != nil {
			return err
		}
		l, err := s.NewMembers(int32(len(r.Members))) //nolint:gosec // at most 1,024.
		if err != nil {
			return err
		}
		for i, m := range r.Members {
			l.At(i).SetRole(m.Role)
			l.At(i).SetDevices(m.Devices)
			if err := l.At(i).SetAccountId(m.AccountID[:]); err != nil {
				return err
			}
		}
		return nil
	})
}

func decodeChannelDetails(s schema.ChannelDetails) (*ChannelDetails, error) {
	var d decoder
	channel, err := s.Channel()
	if err != nil {
		return nil, err
	}
	c, err := decodeChannel(channel)
	if err != nil {
		return nil, err
	}
	list, err := s.Members()
	if err != nil {
		return nil, err
	}
	r := &ChannelDetails{Channel: *c}
	for i := range d.count("members", list.Len(), MaxMembers) {
		m := list.At(i)
		r.Members = append(r.Members, ChannelMember{d.id("accountId")(m.AccountId()), m.Role(), m.Devices()})
	}
	return result(&d, r)
}

// ListChannelsRequest asks for one page of the caller's channels, those after After. It is answered by a ChannelList.
type ListChannelsRequest struct{ After ids.ID }

// Method implements Request.
func (*ListChannelsRequest) Method() string { return "listChannels" }
func (*ListChannelsRequest) sizeHint() int  { return 0 }

func (r *ListChannelsRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewListChannels, func(s schema.ListChannelsRequest) error { return setOptionalID(s.SetAfter, r.After) })
}

func decodeListChannelsRequest(s schema.ListChannelsRequest) (*ListChannelsRequest, error) {
	var d decoder
	return result(&d, &ListChannelsRequest{d.optionalID("after")(s.After())})
}

// setOptionalID writes nothing for the zero id.
func setOptionalID(set func([]byte) error, id ids.ID) error {
	if id.IsZero() {
		return nil
	}
	return set(id[:])
}

// ChannelList is a page of channels, by id.
type ChannelList struct {
	Channels []Channel
	More     bool
}

func (r *ChannelList) sizeHint() int {
	n := 0
	for i := range r.Channels {
		n += r.Channels[i].sizeHint()
	}
	return n
}

func (r *ChannelList) encodeResponse(p schema.Response) error {
	return fill(p.NewChannelList, func(s schema.ChannelList) error {
		s.SetMore(r.More)
		l, err := s.NewChannels(int32(len(r.Channels))) //nolint:gosec // at most 100.
		if err != nil {
			return err
		}
		for i := range r.Channels {
			if err := r.Channels[i].encode(l.At(i)); err != nil {
				return err
			}
		}
		return nil
	})
}

func decodeChannelList(s schema.ChannelList) (*ChannelList, error) {
	var d decoder
	list, err := s.Channels()
	if err != nil {
		return nil, err
	}
	r := &ChannelList{More: s.More()}
	for i := range d.count("channels", list.Len(), MaxListed) {
		c, err := decodeChannel(list.At(i))
		if err != nil {
			return nil, err
		}
		r.Channels = append(r.Channels, *c)
	}
	return result(&d, r)
}

// SetRoleRequest gives a member of a group another role. It is answered by Done.
type SetRoleRequest struct {
	ChannelID, AccountID ids.ID
	Role                 ChannelRole
}

// Method implements Request.
func (*SetRoleRequest) Method() string { return "setRole" }
func (*SetRoleRequest) sizeHint() int  { return 0 }

func (r *SetRoleRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewSetRole, func(s schema.SetRoleRequest) error {
		s.SetRole(r.Role)
		return first(s.SetChannelId(r.ChannelID[:]), s.SetAccountId(r.AccountID[:]))
	})
}

func decodeSetRoleRequest(s schema.SetRoleRequest) (*SetRoleRequest, error) {
	var d decoder
	if s.Role() < RoleMember || s.Role() > RoleAdmin {
		d.fail(Errorf(CodeInvalidArgument, "role %d is none of member, moderator and admin", s.Role()).With("field", "role"))
	}
	return result(&d, &SetRoleRequest{d.id("channelId")(s.ChannelId()), d.id("accountId")(s.AccountId()), s.Role()})
}

// Bounds of a channel's own retention.
const (
	MinRetention = time.Hour
	MaxRetention = 365 * 24 * time.Hour
)

// SetRetentionRequest says how a channel's messages are kept from now on. It is answered by Done.
type SetRetentionRequest struct {
	ChannelID ids.ID
	Retention time.Duration // Whole seconds on the wire; 0: as the cell's policy says.
	History   History
}

// Method implements Request.
func (*SetRetentionRequest) Method() string { return "setRetention" }
func (*SetRetentionRequest) sizeHint() int  { return 0 }

func (r *SetRetentionRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewSetRetention, func(s schema.SetRetentionRequest) error {
		s.SetRetentionSec(seconds(r.Retention))
		s.SetHistory(r.History)
		return s.SetChannelId(r.ChannelID[:])
	})
}

func decodeSetRetentionRequest(s schema.SetRetentionRequest) (*SetRetentionRequest, error) {
	var d decoder
	r := &SetRetentionRequest{d.id("channelId")(s.ChannelId()), time.Duration(s.RetentionSec()) * time.Second, s.History()}
	if r.Retention != 0 && (r.Retention < MinRetention || r.Retention > MaxRetention) {
		d.fail(Errorf(CodeInvalidArgument, "retentionSec is %d, it must be 0 or %d to %d", s.RetentionSec(), MinRetention/time.Second, MaxRetention/time.Second).With("field", "retentionSec"))
	}
	if r.History > HistoryOff {
		d.fail(Errorf(CodeInvalidArgument, "history %d is none of policy, on and off", r.History).With("field", "history"))
	}
	return result(&d, r)
}

// GetGroupInfoRequest asks for what a joiner needs of the channel's MLS group. It is answered by a ChannelGroupInfo.
type GetGroupInfoRequest struct{ ChannelID ids.ID }

// Method implements Request.
func (*GetGroupInfoRequest) Method() string { return "getGroupInfo" }
func (*GetGroupInfoRequest) sizeHint() int  { return 0 }

func (r *GetGroupInfoRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewGetGroupInfo, func(s schema.GetGroupInfoRequest) error { return s.SetChannelId(r.ChannelID[:]) })
}

func decodeGetGroupInfoRequest(s schema.GetGroupInfoRequest) (*GetGroupInfoRequest, error) {
	var d decoder
	return result(&d, &GetGroupInfoRequest{d.id("channelId")(s.ChannelId())})
}

// ChannelGroupInfo is what a joiner needs of the channel's MLS group.
type ChannelGroupInfo struct {
	Generation  uint32
	Epoch       uint64
	GroupInfo   []byte
	RatchetTree []byte
	Seq         uint64 // Of the Commit that began the epoch.
}

func (r *ChannelGroupInfo) sizeHint() int { return len(r.GroupInfo) + len(r.RatchetTree) }

func (r *ChannelGroupInfo) encodeResponse(p schema.Response) error {
	return fill(p.NewChannelGroupInfo, func(s schema.ChannelGroupInfo) error {
		s.SetGeneration(r.Generation)
		s.SetEpoch(r.Epoch)
		s.SetSeq(r.Seq)
		return first(s.SetGroupInfo(r.GroupInfo), s.SetRatchetTree(r.RatchetTree))
	})
}

func decodeChannelGroupInfo(s schema.ChannelGroupInfo) (*ChannelGroupInfo, error) {
	var d decoder
	return result(&d, &ChannelGroupInfo{Generation: s.Generation(), Epoch: s.Epoch(), Seq: s.Seq(),
		GroupInfo:   d.bytes("groupInfo", 1, MaxGroupInfo)(s.GroupInfo()),
		RatchetTree: d.bytes("ratchetTree", 0, MaxRatchetTree)(s.RatchetTree())})
}

// VoteGenerationRequest votes to give a channel's MLS group up for a new one. It is answered by GenerationVotes.
type VoteGenerationRequest struct {
	ChannelID  ids.ID
	Generation uint32 // The channel's present one plus 1.
}

// Method implements Request.
func (*VoteGenerationRequest) Method() string { return "voteGeneration" }
func (*VoteGenerationRequest) sizeHint() int  { return 0 }

func (r *VoteGenerationRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewVoteGeneration, func(s schema.VoteGenerationRequest) error {
		s.SetGeneration(r.Generation)
		return s.SetChannelId(r.ChannelID[:])
	})
}

func decodeVoteGenerationRequest(s schema.VoteGenerationRequest) (*VoteGenerationRequest, error) {
	var d decoder
	return result(&d, &VoteGenerationRequest{d.id("channelId")(s.ChannelId()), d.generation(s.Generation())})
}

// GenerationVotes says how many accounts have voted, and how many it takes.
type GenerationVotes struct{ Votes, Needed uint16 }

func (*GenerationVotes) sizeHint() int { return 0 }

func (r *GenerationVotes) encodeResponse(p schema.Response) error {
	return fill(p.NewGenerationVotes, func(s schema.GenerationVotes) error {
		s.SetVotes(r.Votes)
		s.SetNeeded(r.Needed)
		return nil
	})
}

func decodeGenerationVotes(s schema.GenerationVotes) (*GenerationVotes, error) {
	return &GenerationVotes{s.Votes(), s.Needed()}, nil
}
