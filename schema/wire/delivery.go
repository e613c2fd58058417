package wire

import (
	"strconv"
	"time"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/ids"
)

// EnqueueRequest stores one MLS message in a channel.
type EnqueueRequest struct {
	ChannelID  ids.ID
	Generation uint32
	DeliveryID ids.ID // UUIDv7.
	Payload    []byte
}

// Method implements Request.
func (*EnqueueRequest) Method() string  { return "enqueue" }
func (r *EnqueueRequest) sizeHint() int { return len(r.Payload) }

func (r *EnqueueRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewEnqueue, func(s schema.EnqueueRequest) error {
		s.SetGeneration(r.Generation)
		return first(s.SetChannelId(r.ChannelID[:]), s.SetDeliveryId(r.DeliveryID[:]), s.SetPayload(r.Payload))
	})
}

func decodeEnqueueRequest(s schema.EnqueueRequest) (*EnqueueRequest, error) {
	var d decoder
	r := &EnqueueRequest{ChannelID: d.id("channelId")(s.ChannelId()), Generation: s.Generation(), DeliveryID: d.id("deliveryId")(s.DeliveryId())}
	payload, err := s.Payload()
	switch {
	case err != nil:
		d.fail(err)
	case len(payload) > MaxPayload:
		d.fail(PayloadTooLarge(len(payload), MaxPayload))
	case len(payload) == 0:
		d.fail(Errorf(CodeInvalidArgument, "payload is empty").With("field", "payload"))
	}
	r.Payload = payload
	return result(&d, r)
}

// EnqueueResponse says where the message stands. It is durable when this is sent.
type EnqueueResponse struct {
	Seq        uint64
	AcceptedAt time.Time
	Duplicate  bool
}

func (*EnqueueResponse) sizeHint() int { return 0 }

func (r *EnqueueResponse) encodeResponse(p schema.Response) error {
	return fill(p.NewEnqueue, func(s schema.EnqueueResponse) error {
		s.SetSeq(r.Seq)
		s.SetAcceptedAt(r.AcceptedAt.UnixMilli())
		s.SetDuplicate(r.Duplicate)
		return nil
	})
}

func decodeEnqueueResponse(s schema.EnqueueResponse) (*EnqueueResponse, error) {
	return &EnqueueResponse{Seq: s.Seq(), AcceptedAt: time.UnixMilli(s.AcceptedAt()), Duplicate: s.Duplicate()}, nil
}

// SubscribeRequest starts the device's stream of deliveries on this connection.
type SubscribeRequest struct {
	Credit  uint16 // Deliveries in flight, at most MaxCredit; 0 asks for the cell's default.
	Notices bool   // The client knows deliveries of KindNotice.
}

// Method implements Request.
func (*SubscribeRequest) Method() string { return "subscribe" }
func (*SubscribeRequest) sizeHint() int  { return 0 }

func (r *SubscribeRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewSubscribe, func(s schema.SubscribeRequest) error {
		s.SetCredit(r.Credit)
		s.SetNotices(r.Notices)
		return nil
	})
}

func decodeSubscribeRequest(s schema.SubscribeRequest) (*SubscribeRequest, error) {
	var d decoder
	return result(&d, &SubscribeRequest{d.credit(s.Credit()), s.Notices()})
}

// credit takes at most MaxCredit.
func (d *decoder) credit(n uint16) uint16 {
	if n > MaxCredit {
		d.fail(Errorf(CodeInvalidArgument, "credit is %d, at most %d is taken", n, MaxCredit).With("field", "credit"))
	}
	return n
}

// SubscribeResponse answers SubscribeRequest; deliveries follow.
type SubscribeResponse struct {
	RestoreEpoch uint64
	Credit       uint16
}

func (*SubscribeResponse) sizeHint() int { return 0 }

func (r *SubscribeResponse) encodeResponse(p schema.Response) error {
	return fill(p.NewSubscribe, func(s schema.SubscribeResponse) error {
		s.SetRestoreEpoch(r.RestoreEpoch)
		s.SetCredit(r.Credit)
		return nil
	})
}

func decodeSubscribeResponse(s schema.SubscribeResponse) (*SubscribeResponse, error) {
	var d decoder
	return result(&d, &SubscribeResponse{RestoreEpoch: s.RestoreEpoch(), Credit: d.credit(s.Credit())})
}

// AckRequest acknowledges, per channel, everything up to a sequence.
type AckRequest struct{ Acks []Ack }

// Ack is one channel's cumulative acknowledgement.
type Ack struct {
	ChannelID ids.ID
	Seq       uint64
}

// Method implements Request.
func (*AckRequest) Method() string  { return "ack" }
func (r *AckRequest) sizeHint() int { return 48 * len(r.Acks) }

func (r *AckRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewAck, func(s schema.AckRequest) error {
		list, err := s.NewAcks(int32(len(r.Acks))) //nolint:gosec // at most 256.
		if err != nil {
			return err
		}
		for i, a := range r.Acks {
			list.At(i).SetSeq(a.Seq)
			if err := list.At(i).SetChannelId(a.ChannelID[:]); err != nil {
				return err
			}
		}
		return nil
	})
}

func decodeAckRequest(s schema.AckRequest) (*AckRequest, error) {
	var d decoder
	list, err := s.Acks()
	if err != nil {
		return nil, err
	}
	r := &AckRequest{}
	for i := range d.count("acks", list.Len(), MaxAcks) {
		r.Acks = append(r.Acks, Ack{ChannelID: d.id("channelId")(list.At(i).ChannelId()), Seq: list.At(i).Seq()})
	}
	return result(&d, r)
}

// Done answers calls that have nothing to say.
type Done struct{}

func (*Done) sizeHint() int { return 0 }
func (*Done) encodeResponse(p schema.Response) error {
	p.SetDone()
	return nil
}

// Delivery is one stored message, pushed in its channel's order.
type Delivery struct {
	ChannelID       ids.ID // The device's id: its inbox.
	Seq, PrevSeq    uint64
	Kind            DeliveryKind
	Generation      uint32
	SenderAccountID ids.ID
	SenderDeviceID  ids.ID
	DeliveryID      ids.ID
	AcceptedAt      time.Time
	Payload         []byte
	AboutChannelID  ids.ID // Zero outside the inbox.

	frame []byte // Of Encode.
}

// Encode makes the delivery's frame once, for all to whom it is pushed: Marshal returns it from then on. The
// delivery must not be changed any more, nor the frame.
func (r *Delivery) Encode() (err error) {
	r.frame, err = Marshal(Envelope{Body: r})
	return err
}

// DeliveryKind says what a Delivery's payload is.
type DeliveryKind = schema.Delivery_Kind

// The kinds, by the names of the schema.
const (
	KindApplication = schema.Delivery_Kind_application
	KindCommit      = schema.Delivery_Kind_commit
	KindProposal    = schema.Delivery_Kind_proposal
	KindWelcome     = schema.Delivery_Kind_welcome
	KindOwn         = schema.Delivery_Kind_own
	KindNotice      = schema.Delivery_Kind_notice
)

func (r *Delivery) sizeHint() int { return len(r.Payload) }

func (r *Delivery) encodePush(p schema.Push) error {
	return fill(p.NewDeliver, func(s schema.Delivery) error {
		s.SetSeq(r.Seq)
		s.SetPrevSeq(r.PrevSeq)
		s.SetKind(r.Kind)
		s.SetGeneration(r.Generation)
		s.SetAcceptedAt(r.AcceptedAt.UnixMilli())
		if !r.AboutChannelID.IsZero() {
			if err := s.SetAboutChannelId(r.AboutChannelID[:]); err != nil {
				return err
			}
		}
		return first(s.SetChannelId(r.ChannelID[:]), s.SetSenderAccountId(r.SenderAccountID[:]),
			s.SetSenderDeviceId(r.SenderDeviceID[:]), s.SetDeliveryId(r.DeliveryID[:]), s.SetPayload(r.Payload))
	})
}

func decodeDelivery(s schema.Delivery) (*Delivery, error) {
	var d decoder
	return result(&d, &Delivery{ChannelID: d.id("channelId")(s.ChannelId()), Seq: s.Seq(), PrevSeq: s.PrevSeq(), Kind: s.Kind(),
		Generation: s.Generation(), SenderAccountID: d.id("senderAccountId")(s.SenderAccountId()),
		SenderDeviceID: d.id("senderDeviceId")(s.SenderDeviceId()), DeliveryID: d.id("deliveryId")(s.DeliveryId()),
		AcceptedAt: time.UnixMilli(s.AcceptedAt()), Payload: d.bytes("payload", 0, MaxPayload)(s.Payload()),
		AboutChannelID: d.optionalID("aboutChannelId")(s.AboutChannelId())})
}

// CaughtUp marks the end of what was stored when the subscription began.
type CaughtUp struct{ Deliveries uint64 }

func (*CaughtUp) sizeHint() int { return 0 }

func (r *CaughtUp) encodePush(p schema.Push) error {
	return fill(p.NewCaughtUp, func(s schema.CaughtUp) error {
		s.SetDeliveries(r.Deliveries)
		return nil
	})
}

func decodeCaughtUp(s schema.CaughtUp) (*CaughtUp, error) { return &CaughtUp{s.Deliveries()}, nil }

// PayloadTooLarge is the error for an MLS message of n bytes where limit are taken.
func PayloadTooLarge(n, limit int) *Error {
	return Errorf(CodePayloadTooLarge, "the message has %d bytes, at most %d are taken; split it", n, limit).With("limit", strconv.Itoa(limit))
}
