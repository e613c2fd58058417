package server_test

import (
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// databaseProxy stands between a cell and its database. It can be slow, and it can fall silent without closing anything,
// as a network does that loses every packet.
type databaseProxy struct {
	t        *testing.T
	listener net.Listener
	to       string
	running  sync.WaitGroup

	mu    sync.Mutex
	delay time.Duration
	quiet chan struct{} // Closed when the silence ends; nil: there is none.
	open  map[net.Conn]struct{}
	ended bool
}

// slowed returns a connection string that leads through a new proxy.
func slowed(t *testing.T, database string) (*databaseProxy, string) {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &databaseProxy{t: t, listener: l, to: u.Host, open: map[net.Conn]struct{}{}}
	p.running.Go(p.accept)
	t.Cleanup(p.close)
	u.Host = l.Addr().String()
	return p, u.String()
}

func (p *databaseProxy) close() {
	p.silence(false)
	_ = p.listener.Close()
	p.mu.Lock()
	p.ended = true
	for c := range p.open {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.running.Wait()
}

// slow delays whatever comes, each way.
func (p *databaseProxy) slow(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// silence keeps everything back, or lets it through again.
func (p *databaseProxy) silence(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if on && p.quiet == nil {
		p.quiet = make(chan struct{})
	}
	if !on && p.quiet != nil {
		close(p.quiet)
		p.quiet = nil
	}
}

func (p *databaseProxy) hold() {
	p.mu.Lock()
	d, quiet := p.delay, p.quiet
	p.mu.Unlock()
	time.Sleep(d)
	if quiet != nil {
		<-quiet
	}
}

func (p *databaseProxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp4", p.to) //nolint:noctx // Local.
		if err != nil {
			_ = c.Close()
			continue
		}
		if !p.keep(c, up) {
			return
		}
		p.running.Go(func() { p.pipe(up, c) })
		p.running.Go(func() { p.pipe(c, up) })
	}
}

func (p *databaseProxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.open[c] = struct{}{}
		if p.ended {
			_ = c.Close()
		}
	}
	return !p.ended
}

func (p *databaseProxy) pipe(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.hold()
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
