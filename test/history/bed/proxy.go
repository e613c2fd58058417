//go:build linux

package bed

import (
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Weather is how a network treats packets, each for itself.
type Weather struct {
	Drop, Double, Delay float64       // Of all packets; the delayed are overtaken by others.
	Most                time.Duration // Of a delay.
}

// Fair and Foul are the usual and the worse.
var (
	Fair = Weather{Drop: 0.002, Double: 0.005, Delay: 0.02, Most: 5 * time.Millisecond}
	Foul = Weather{Drop: 0.08, Double: 0.05, Delay: 0.25, Most: 30 * time.Millisecond}
	Dark = Weather{Drop: 1}
)

// Proxy carries UDP between clients and a replica.
type Proxy struct {
	Addr    string
	weather atomic.Pointer[Weather]

	listen *net.UDPConn
	server *net.UDPAddr
	wg     sync.WaitGroup

	mu      sync.Mutex
	rand    *rand.Rand
	clients map[string]*net.UDPConn
	closed  bool
}

// NewProxy stands before a replica.
func NewProxy(server string, seed uint64) (*Proxy, error) {
	to, err := net.ResolveUDPAddr("udp", server)
	if err != nil {
		return nil, err
	}
	listen, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	p := &Proxy{Addr: listen.LocalAddr().String(), listen: listen, server: to, clients: map[string]*net.UDPConn{},
		rand: rand.New(rand.NewPCG(seed, 3))} //nolint:gosec // a test's dice.
	p.Set(Fair)
	p.wg.Go(p.forward)
	return p, nil
}

// Set changes the weather.
func (p *Proxy) Set(w Weather) { p.weather.Store(&w) }

func (p *Proxy) forward() {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := p.listen.ReadFromUDP(buf)
		if err != nil {
			return
		}
		if out := p.upstream(from); out != nil {
			p.carry(buf[:n], func(b []byte) { _, _ = out.Write(b) })
		}
	}
}

// upstream is the socket of a client's own.
func (p *Proxy) upstream(client *net.UDPAddr) *net.UDPConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := client.String()
	if out, ok := p.clients[key]; ok || p.closed {
		return out
	}
	out, err := net.DialUDP("udp", nil, p.server)
	if err != nil {
		return nil // As if the packet were lost.
	}
	p.clients[key] = out
	p.wg.Go(func() { p.backward(out, client, key) })
	return out
}

const idle = 60 * time.Second

func (p *Proxy) backward(out *net.UDPConn, client *net.UDPAddr, key string) {
	defer func() {
		p.mu.Lock()
		delete(p.clients, key)
		p.mu.Unlock()
		_ = out.Close()
	}()
	buf := make([]byte, 64<<10)
	for {
		_ = out.SetReadDeadline(time.Now().Add(idle))
		n, err := out.Read(buf)
		var gone net.Error
		switch {
		case err == nil:
			p.carry(buf[:n], func(b []byte) { _, _ = p.listen.WriteToUDP(b, client) })
		case errors.As(err, &gone) && gone.Timeout(), errors.Is(err, net.ErrClosed):
			return
		default: // The replica is away, and its kernel said so.
		}
	}
}

// carry sends a packet on, as the weather is.
func (p *Proxy) carry(b []byte, send func([]byte)) {
	w := p.weather.Load()
	p.mu.Lock()
	drop, double, delay := p.rand.Float64() < w.Drop, p.rand.Float64() < w.Double, p.rand.Float64() < w.Delay
	var later time.Duration
	if w.Most > 0 {
		later = time.Duration(p.rand.Int64N(int64(w.Most)))
	}
	p.mu.Unlock()
	if drop {
		return
	}
	if delay {
		kept := append([]byte(nil), b...)
		time.AfterFunc(later, func() { send(kept) })
	} else {
		send(b)
	}
	if double {
		send(b)
	}
}

// Close ends it.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	for _, c := range p.clients {
		_ = c.Close()
	}
	p.mu.Unlock()
	_ = p.listen.Close()
	p.wg.Wait()
}
