package e2elocal

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy stands between clients and a cell and can lose what goes one way.
type proxy struct {
	addr        string
	loseAnswers atomic.Bool // From the cell to clients.
	loseAll     atomic.Bool // Both ways, from when answers are lost.

	listen  *net.UDPConn
	server  *net.UDPAddr
	mu      sync.Mutex
	clients map[string]*net.UDPConn
	wg      sync.WaitGroup
}

func (c *cell) makeProxy() *proxy {
	c.t.Helper()
	server, err := net.ResolveUDPAddr("udp", c.addr)
	if err != nil {
		c.t.Fatal(err)
	}
	listen, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		c.t.Fatal(err)
	}
	p := &proxy{addr: listen.LocalAddr().String(), listen: listen, server: server, clients: map[string]*net.UDPConn{}}
	p.wg.Go(func() { p.forward(c.t) })
	c.t.Cleanup(p.close)
	return p
}

func (p *proxy) forward(t *testing.T) {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := p.listen.ReadFromUDP(buf)
		if err != nil {
			return
		}
		out, err := p.upstream(from)
		if err != nil {
			t.Error(err)
			return
		}
		if !p.loseAnswers.Load() || !p.loseAll.Load() {
			out.Write(buf[:n]) //nolint:errcheck // UDP loses packets.
		}
	}
}

func (p *proxy) upstream(client *net.UDPAddr) (*net.UDPConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if out, ok := p.clients[client.String()]; ok {
		return out, nil
	}
	out, err := net.DialUDP("udp", nil, p.server)
	if err != nil {
		return nil, err
	}
	p.clients[client.String()] = out
	p.wg.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := out.Read(buf)
			if err != nil {
				return
			}
			if !p.loseAnswers.Load() {
				p.listen.WriteToUDP(buf[:n], client) //nolint:errcheck // as above.
			}
		}
	})
	return out, nil
}

func (p *proxy) close() {
	p.listen.Close()
	p.mu.Lock()
	for _, out := range p.clients {
		out.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}
