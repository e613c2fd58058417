package endpoint

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/cell/limits"
)

// What quic-go does with packets that belong to no connection, before anything here is asked. It drops without an
// answer: what is no QUIC, long headers other than Initial, Initials in datagrams below 1,200 bytes, 0-RTT. It answers an
// unknown version with the list of ours, in a smaller packet than it got, and only one of 1,200 bytes or more (RFC 9000
// §6). It answers a short header with a stateless reset, if that is shorter than the packet. Each such answer has a
// queue of four, and what finds it full is dropped.
//
// Everything below runs in quic-go's one goroutine for newcomers: it must be quick.

// handshake is one connection's, from its first packet on.
type handshake struct {
	begun time.Time
	place *limits.Place
	done  atomic.Bool
}

type handshakeKey struct{}

func addressOf(a net.Addr) netip.Addr {
	if udp, ok := a.(*net.UDPAddr); ok {
		return udp.AddrPort().Addr()
	}
	return netip.Addr{}
}

// needsRetry has a newcomer without a token prove its address first (RFC 9000 §8.1.2): a packet of ours that carries
// a token, less than a fifth of what he sent, and no memory of it.
func (q *QUIC) needsRetry(a net.Addr) bool {
	if !q.limits.NeedsRetry(addressOf(a)) {
		return false
	}
	if q.retried.another(a) {
		q.metrics.Retries.Inc()
	}
	return true
}

// lately is whom something was last done to: a first flight takes two packets, of which only one is to be counted.
type lately struct{ who netip.AddrPort }

func (l *lately) another(a net.Addr) bool {
	udp, ok := a.(*net.UDPAddr)
	if !ok {
		return true
	}
	before := l.who
	l.who = udp.AddrPort()
	return l.who != before
}

var errRefused = errors.New("refused")

// admit takes a place for a connection, or has it refused with CONNECTION_REFUSED before a byte of its handshake is
// looked at. An address counts as proven only by a Retry's token, seconds old. Tokens of earlier connections (NEW_TOKEN)
// are not taken (newTransport): they may be shown any number of times, by whoever once had the address.
func (q *QUIC) admit(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	place, why := q.limits.Admit(addressOf(info.RemoteAddr), info.AddrVerified)
	if why != limits.Admitted {
		if q.refused.another(info.RemoteAddr) {
			q.metrics.Refused.WithLabelValues(string(why)).Inc()
		}
		return nil, errRefused
	}
	h := &handshake{begun: q.services.Now(), place: place}
	q.metrics.HandshakesOpen.Inc()
	context.AfterFunc(ctx, func() { q.ended(h) })
	return context.WithValue(ctx, handshakeKey{}, h), nil
}

// ended gives the place back when the connection is over, whatever became of it.
func (q *QUIC) ended(h *handshake) {
	h.place.Release()
	if h.done.CompareAndSwap(false, true) {
		q.metrics.HandshakesOpen.Dec()
		q.metrics.Handshakes.WithLabelValues("failed").Inc()
	}
}

// completed notes that a handshake is done. False: its address has too many connections, which only now is known to
// be its own.
func (q *QUIC) completed(conn *quic.Conn) bool {
	h, ok := conn.Context().Value(handshakeKey{}).(*handshake)
	if !ok || !h.done.CompareAndSwap(false, true) {
		return true // It has ended already; its session will find out.
	}
	q.metrics.HandshakesOpen.Dec()
	q.metrics.Handshakes.WithLabelValues("ok").Inc()
	q.metrics.HandshakeTime.Observe(q.services.Now().Sub(h.begun).Seconds())
	why := h.place.Complete(addressOf(conn.RemoteAddr()))
	if why != limits.Admitted {
		q.metrics.Refused.WithLabelValues(string(why)).Inc()
	}
	return why == limits.Admitted
}
