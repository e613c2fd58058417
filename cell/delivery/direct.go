package delivery

import (
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/wire"
)

// A live message goes to a subscription that has nothing else to do without waking its goroutine, which costs as much
// as all the rest of a push; and where several devices are pushed the same, it is encoded once.

const (
	directMost  = 32       // Messages stored together from which on the subscriptions' goroutines share the encoding among them.
	directBytes = 32 << 10 // A larger payload goes on a stream of its own.
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
	next := m.Seq == p.sent+1 && m.whole.PrevSeq == p.prev && !p.held() && !p.ended()
	if !next || p.generation > 0 && m.Generation > p.generation || !s.credited(len(m.Payload)) || !s.push.TryPush(m.whole) {
		return false
	}
	p.generation = max(p.generation, m.Generation)
	s.fly(m.Message, p, len(m.Payload))
	s.sent("live")
	s.hub.metrics.DeliveryLag.Observe(s.hub.now().Sub(m.AcceptedAt).Seconds())
	return true
}
