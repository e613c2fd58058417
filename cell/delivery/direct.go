package delivery

import (
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/wire"
)

// A live message goes to a subscription that has nothing else to do without waking its goroutine, and where several devices
// are pushed the same it is encoded once. In a group of 100, goroutine and encoding were an eighth of the cell's work.

const (
	directMost  = 32       // Of more messages stored together, one for a single device is encoded by its goroutine, beside the lane.
	directBytes = 32 << 10 // A larger payload is left to the goroutines, for it is copied while the Hub is locked.
)

// announced is a message on its way to the subscriptions that follow its channel.
type announced struct {
	*store.Message
	whole *wire.Delivery // As those are pushed it who got the one before it; encoded. Nil: each encodes its own.
}

// encoded is m with its encoding, for so many followers, if that is worth it here.
func encoded(m *store.Message, followers, together int) announced {
	if followers == 0 || followers == 1 && together > directMost || m.Kind != store.MessageApplication || len(m.Payload) > directBytes {
		return announced{m, nil}
	}
	d := delivery(m, m.Seq-1)
	if d.Encode() != nil { // Each finds out by itself.
		return announced{m, nil}
	}
	return announced{m, d}
}

// pushNow pushes a message, unless Run's goroutine has to. It needs s.mu.
func (s *Subscription) pushNow(m announced, p *position) bool {
	if m.whole == nil || !s.idle || s.reload || len(s.mailbox) > 0 || m.SenderID == s.device {
		return false
	}
	next := p.isNext(m.Seq) && m.whole.PrevSeq == p.prev && !p.isLater(m.Generation)
	if !next || !s.credited(len(m.Payload)) || !s.push.TryPush(m.whole) {
		return false
	}
	p.generation = max(p.generation, m.Generation)
	s.fly(m.Message, p, len(m.Payload))
	s.sent("live")
	s.hub.metrics.DeliveryLag.Observe(s.hub.now().Sub(m.AcceptedAt).Seconds())
	return true
}
