package wire

import (
	"time"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/ids"
)

// CommitRequest hands in a Commit with all that follows from it; the first of an epoch wins.
type CommitRequest struct {
	ChannelID  ids.ID
	Generation uint32
	Epoch      uint64 // The one the Commit ends.
	DeliveryID ids.ID
	Commit     []byte // MLSMessage.
	GroupInfo  []byte // MLSMessage of the next epoch.
	Welcomes   []DeviceWelcome
}

// Method implements Request.
func (*CommitRequest) Method() string { return "commit" }
func (r *CommitRequest) sizeHint() int {
	return len(r.Commit) + len(r.GroupInfo) + welcomes(r.Welcomes).sizeHint()
}

func (r *CommitRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewCommit, func(s schema.CommitRequest) error {
		s.SetGeneration(r.Generation)
		s.SetEpoch(r.Epoch)
		return first(s.SetChannelId(r.ChannelID[:]), s.SetDeliveryId(r.DeliveryID[:]), s.SetCommit(r.Commit), s.SetGroupInfo(r.GroupInfo),
			welcomes(r.Welcomes).encode(s.NewWelcomes))
	})
}

func decodeCommitRequest(s schema.CommitRequest) (*CommitRequest, error) {
	var d decoder
	return result(&d, &CommitRequest{ChannelID: d.id("channelId")(s.ChannelId()), Generation: d.generation(s.Generation()), Epoch: s.Epoch(),
		DeliveryID: d.id("deliveryId")(s.DeliveryId()), Commit: d.bytes("commit", 1, MaxCommit)(s.Commit()),
		GroupInfo: d.bytes("groupInfo", 1, MaxGroupInfo)(s.GroupInfo()), Welcomes: d.welcomes(s.Welcomes())})
}

// CommitResponse tells the winner where its Commit stands.
type CommitResponse struct {
	Seq        uint64
	Epoch      uint64 // The one that begins.
	AcceptedAt time.Time
	Duplicate  bool
}

func (*CommitResponse) sizeHint() int { return 0 }

func (r *CommitResponse) encodeResponse(p schema.Response) error {
	return fill(p.NewCommit, func(s schema.CommitResponse) error {
		s.SetSeq(r.Seq)
		s.SetEpoch(r.Epoch)
		s.SetAcceptedAt(r.AcceptedAt.UnixMilli())
		s.SetDuplicate(r.Duplicate)
		return nil
	})
}

func decodeCommitResponse(s schema.CommitResponse) (*CommitResponse, error) {
	return &CommitResponse{s.Seq(), s.Epoch(), time.UnixMilli(s.AcceptedAt()), s.Duplicate()}, nil
}

// ProposeRequest hands in a proposal by reference. It is answered by an EnqueueResponse.
type ProposeRequest struct {
	ChannelID  ids.ID
	Generation uint32
	DeliveryID ids.ID
	Proposal   []byte // MLSMessage.
}

// Method implements Request.
func (*ProposeRequest) Method() string  { return "propose" }
func (r *ProposeRequest) sizeHint() int { return len(r.Proposal) }

func (r *ProposeRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewPropose, func(s schema.ProposeRequest) error {
		s.SetGeneration(r.Generation)
		return first(s.SetChannelId(r.ChannelID[:]), s.SetDeliveryId(r.DeliveryID[:]), s.SetProposal(r.Proposal))
	})
}

func decodeProposeRequest(s schema.ProposeRequest) (*ProposeRequest, error) {
	var d decoder
	return result(&d, &ProposeRequest{ChannelID: d.id("channelId")(s.ChannelId()), Generation: d.generation(s.Generation()),
		DeliveryID: d.id("deliveryId")(s.DeliveryId()), Proposal: d.bytes("proposal", 1, MaxProposal)(s.Proposal())})
}

// Behind tells a device that messages of a channel up to Seq are gone for it.
type Behind struct {
	ChannelID ids.ID
	Seq       uint64
}

func (*Behind) sizeHint() int { return 0 }

func (r *Behind) encodePush(p schema.Push) error {
	return fill(p.NewBehind, func(s schema.Behind) error {
		s.SetSeq(r.Seq)
		return s.SetChannelId(r.ChannelID[:])
	})
}

func decodeBehind(s schema.Behind) (*Behind, error) {
	var d decoder
	return result(&d, &Behind{d.id("channelId")(s.ChannelId()), s.Seq()})
}

// KeyPackagesLow tells a device that it should upload KeyPackages.
type KeyPackagesLow KeyPackageStatus

func (*KeyPackagesLow) sizeHint() int { return 0 }

func (r *KeyPackagesLow) encodePush(p schema.Push) error {
	return fill(p.NewKeyPackagesLow, (*KeyPackageStatus)(r).encode)
}

func decodeKeyPackagesLow(s schema.KeyPackageStatus) (*KeyPackagesLow, error) {
	status, err := decodeKeyPackageStatus(s)
	return (*KeyPackagesLow)(status), err
}
