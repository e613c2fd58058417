package endpoint

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/quic-go/quic-go"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/session"
)

// dialFrom connects from another address of this machine.
func (c *cell) dialFrom(t testing.TB, ip string) (*quic.Conn, error) {
	t.Helper()
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)})
	must(t, err)
	transport := &quic.Transport{Conn: socket}
	t.Cleanup(func() {
		must(t, transport.Close())
		must(t, socket.Close())
	})
	return c.dialOn(t, transport)
}

func (c *cell) dialOn(t testing.TB, transport *quic.Transport) (*quic.Conn, error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(c.ca.Certificate())
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := transport.Dial(ctx, c.Addr(), &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", NextProtos: []string{ALPN}, MinVersion: tls.VersionTLS13}, nil)
	if err == nil {
		t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
	}
	return conn, err
}

// connected is a connection that the cell serves.
func (c *cell) connected(t *testing.T, ip string) *quic.Conn {
	t.Helper()
	conn, err := c.dialFrom(t, ip)
	must(t, err)
	greet(t, conn)
	return conn
}

func isRefused(err error) bool {
	var e *quic.TransportError
	return errors.As(err, &e) && e.Remote && e.ErrorCode == quic.ConnectionRefused
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

// places waits until so many are taken.
func (c *cell) places(t testing.TB, want int) {
	t.Helper()
	eventually(t, "places are given back", func() bool { open, underway := c.limits.Counts(); return open == want && underway == 0 })
}

func (c *cell) refusals(reason string) float64 {
	return testutil.ToFloat64(c.metrics.Refused.WithLabelValues(reason))
}

func TestConnectionsOfAnAddress(t *testing.T) {
	t.Parallel()
	var certificates atomic.Int64
	c := makeCell(t, tweak{policy: func(p *policy.Limits) { p.ConnectionsPerIP = 4 }, asked: &certificates})
	var open []*quic.Conn
	for range 4 {
		open = append(open, c.connected(t, "127.0.0.2"))
	}
	before := certificates.Load()
	for range 3 {
		if _, err := c.dialFrom(t, "127.0.0.2"); !isRefused(err) {
			t.Fatalf("the fifth: %v", err)
		}
	}
	if n := certificates.Load() - before; n != 0 {
		t.Errorf("%d handshakes were begun for who is refused", n)
	}
	if n := c.refusals("address"); n != 3 {
		t.Errorf("%v refusals were counted", n)
	}
	c.connected(t, "127.0.0.3")
	stillOpen(t, open[1])
	must(t, open[0].CloseWithError(0, ""))
	c.places(t, 4)
	c.connected(t, "127.0.0.2")
}

func stillOpen(t *testing.T, conn *quic.Conn) {
	t.Helper()
	if err := conn.Context().Err(); err != nil {
		t.Fatalf("it has ended: %v", context.Cause(conn.Context()))
	}
}

func TestConnectionsInAll(t *testing.T) {
	t.Parallel()
	c := makeCell(t, tweak{policy: func(p *policy.Limits) { p.MaxConnections = 3 }})
	first := c.connected(t, "127.0.0.2")
	c.connected(t, "127.0.0.3")
	c.connected(t, "127.0.0.4")
	if _, err := c.dialFrom(t, "127.0.0.5"); !isRefused(err) {
		t.Fatal(err)
	}
	if n := c.refusals("total"); n != 1 {
		t.Errorf("%v refusals were counted", n)
	}
	must(t, first.CloseWithError(0, ""))
	c.places(t, 2)
	c.connected(t, "127.0.0.5")
}

// Of many who come at the same moment as many are served as may be, and the others are told.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	const most, n = 5, 40
	c := makeCell(t, tweak{policy: func(p *policy.Limits) { p.ConnectionsPerIP = most }})
	var mu sync.Mutex
	served, refused := 0, 0
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			conn, err := c.dialFrom(t, "127.0.0.2")
			if err == nil {
				var stream *quic.Stream
				if stream, err = conn.OpenStream(); err == nil {
					err = hello(stream)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			var full *quic.ApplicationError
			switch {
			case err == nil:
				served++
			case isRefused(err), errors.As(err, &full) && full.ErrorCode == session.CloseFull:
				refused++
			default:
				t.Errorf("neither served nor refused: %v", err)
			}
		})
	}
	all.Wait()
	if served != most || refused != n-most {
		t.Errorf("%d served, %d refused", served, refused)
	}
	c.places(t, most)
}

func TestTrustedAddressesHaveNoCap(t *testing.T) {
	t.Parallel()
	c := makeCell(t, tweak{policy: func(p *policy.Limits) {
		p.ConnectionsPerIP = 1
		p.TrustedRanges = append(p.TrustedRanges, mustPrefix("127.0.0.2/32"))
	}})
	for range 5 {
		c.connected(t, "127.0.0.2")
	}
	c.connected(t, "127.0.0.3")
	if _, err := c.dialFrom(t, "127.0.0.3"); !isRefused(err) {
		t.Fatal(err)
	}
}

// forger sends packets from an address and never answers, as one who writes that address on his packets would.
type forger struct {
	t      testing.TB
	socket *net.UDPConn
}

func (c *cell) forger(t testing.TB, ip string) *forger {
	t.Helper()
	socket, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)}, c.Addr().(*net.UDPAddr))
	must(t, err)
	t.Cleanup(func() { _ = socket.Close() })
	return &forger{t, socket}
}

func (f *forger) send(b []byte) {
	f.t.Helper()
	_, err := f.socket.Write(b)
	must(f.t, err)
}

// answer returns what comes within d, or nil.
func (f *forger) answer(d time.Duration) []byte {
	f.t.Helper()
	must(f.t, f.socket.SetReadDeadline(time.Now().Add(d)))
	b := make([]byte, 2000)
	n, err := f.socket.Read(b)
	if err != nil {
		return nil
	}
	return b[:n]
}

// longHeader is a packet of so many bytes with random connection ids, whose payload nobody can decrypt: quic-go takes an
// Initial for a new connection before it finds out.
func longHeader(kind byte, version uint32, size int) []byte {
	b := make([]byte, size)
	rand.Read(b)
	b[0] = 0xc0 | kind<<4
	binary.BigEndian.PutUint32(b[1:], version)
	b[5] = 8  // Destination connection id,
	b[14] = 8 // and source.
	b[23] = 0 // No token.
	binary.BigEndian.PutUint16(b[24:], 0x4000|uint16(size-26))
	return b
}

func initial() []byte { return longHeader(0, uint32(quic.Version1), 1200) }

func isRetry(b []byte) bool { return len(b) > 0 && b[0]&0xf0 == 0xf0 }

func TestPacketsForNothing(t *testing.T) {
	t.Parallel()
	c := makeCell(t, tweak{})
	noise := func(first byte, size int) []byte {
		b := make([]byte, size)
		rand.Read(b)
		b[0] = first
		return b
	}
	for name, x := range map[string]struct {
		packet []byte
		most   int // Bytes of the answer; 0: none may come.
	}{
		"one byte":                       {noise(0x40, 1), 0},
		"no QUIC":                        {noise(0x00, 1200), 0},
		"short header, small":            {noise(0x40, 42), 0},
		"short header, larger":           {noise(0x40, 43), 42}, // A stateless reset.
		"short header, large":            {noise(0x40, 1200), 42},
		"unknown version":                {longHeader(0, 0xff00001d, 1200), 60},
		"unknown version, small":         {longHeader(0, 0xff00001d, 1199), 0},
		"QUIC version 2":                 {longHeader(1, uint32(quic.Version2), 1200), 60},
		"version negotiation":            {longHeader(0, 0, 1200), 0},
		"Initial, small":                 {longHeader(0, uint32(quic.Version1), 1199), 0},
		"0-RTT":                          {longHeader(1, uint32(quic.Version1), 1200), 0},
		"Handshake":                      {longHeader(2, uint32(quic.Version1), 1200), 0},
		"Retry":                          {longHeader(3, uint32(quic.Version1), 1200), 0},
		"Initial with a short client id": {shortID(initial()), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := c.forger(t, "127.0.0.2")
			f.send(x.packet)
			wait := 300 * time.Millisecond
			if x.most > 0 {
				wait = patience
			}
			got := f.answer(wait)
			if len(got) > x.most || x.most > 0 && len(got) == 0 {
				t.Errorf("%d bytes were answered with %d, at most %d may be", len(x.packet), len(got), x.most)
			}
			if open, _ := c.limits.Counts(); open != 0 {
				t.Errorf("%d places are taken", open)
			}
		})
	}
}

// shortID gives an Initial a destination connection id of 4 bytes, which the RFC does not allow without a token.
func shortID(b []byte) []byte {
	b[5] = 4
	copy(b[10:], []byte{8})
	b[19] = 0
	binary.BigEndian.PutUint16(b[20:], 0x4000|uint16(len(b)-22))
	return b
}

// An Initial that looks right takes a place for as long as a handshake may be silent, and is not answered.
func TestAHandshakeThatGoesNowhereIsForgotten(t *testing.T) {
	t.Parallel()
	c := makeCell(t, tweak{})
	f := c.forger(t, "127.0.0.2")
	for range 10 {
		f.send(initial())
	}
	eventually(t, "places taken", func() bool { open, underway := c.limits.Counts(); return open == 10 && underway == 10 })
	if b := f.answer(100 * time.Millisecond); b != nil {
		t.Errorf("answered with %d bytes", len(b))
	}
	begin := time.Now()
	c.places(t, 0)
	if took := time.Since(begin); took > 2*handshakePatience {
		t.Errorf("the places are free after %s", took)
	}
	eventually(t, "they are counted", func() bool { return testutil.ToFloat64(c.metrics.Handshakes.WithLabelValues("failed")) == 10 })
	if n := testutil.ToFloat64(c.metrics.HandshakesOpen); n != 0 {
		t.Errorf("%v are said to be under way", n)
	}
}

func TestNewcomersProveThemselvesWhenManyHandshakesAreUnderWay(t *testing.T) {
	t.Parallel()
	const many = 8
	c := makeCell(t, tweak{policy: func(p *policy.Limits) { p.HandshakesBeforeRetry = many }})
	c.connected(t, "127.0.0.2")
	if n := testutil.ToFloat64(c.metrics.Retries); n != 0 {
		t.Fatalf("%v Retries without need", n)
	}
	f := c.forger(t, "127.0.0.3")
	retries := 0
	for range 100 {
		p := initial()
		f.send(p)
		if b := f.answer(50 * time.Millisecond); isRetry(b) {
			retries++
			if 5*len(b) > len(p) {
				t.Fatalf("a Retry of %d bytes for a packet of %d", len(b), len(p))
			}
		}
		if retries == 20 {
			break
		}
	}
	if retries != 20 {
		t.Fatalf("only %d of 100 were asked for proof", retries)
	}
	if open, underway := c.limits.Counts(); open != many+1 || underway != many {
		t.Errorf("%d places, %d handshakes", open, underway)
	}
	before := testutil.ToFloat64(c.metrics.Retries)
	c.connected(t, "127.0.0.2") // It proves itself, and is served.
	if n := testutil.ToFloat64(c.metrics.Retries) - before; n != 1 {
		t.Errorf("%v Retries for one client", n)
	}
}

// A victim has all its places while somebody floods the cell in its name.
func TestForgersUseUpNobodysPlaces(t *testing.T) {
	t.Parallel()
	const most = 6
	c := makeCell(t, tweak{policy: func(p *policy.Limits) { p.ConnectionsPerIP, p.MaxConnections = most, 64 }})
	const victim = "127.0.0.2"
	f := c.forger(t, victim)
	stop := make(chan struct{})
	var flood sync.WaitGroup
	flood.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for range 20_000 {
			select {
			case <-stop:
				return
			case <-tick.C:
				_, _ = f.socket.Write(initial())
			}
		}
	})
	defer flood.Wait()
	defer close(stop)
	eventually(t, "the flood is felt", func() bool { return testutil.ToFloat64(c.metrics.Retries) > 0 })
	for range most {
		c.connected(t, victim)
	}
	if _, err := c.dialFrom(t, victim); !isRefused(err) {
		t.Fatalf("one more than may be: %v", err)
	}
	c.connected(t, "127.0.0.3")
}

// Near its cap an address has to be proven, and only it.
func TestNearItsCapAnAddressProvesItself(t *testing.T) {
	t.Parallel()
	c := makeCell(t, tweak{policy: func(p *policy.Limits) { p.ConnectionsPerIP = 4 }})
	for range 3 {
		c.connected(t, "127.0.0.2")
	}
	asked := func(ip string) bool {
		f := c.forger(t, ip)
		f.send(initial())
		return isRetry(f.answer(200 * time.Millisecond))
	}
	if asked("127.0.0.3") {
		t.Error("a stranger is asked for proof")
	}
	if !asked("127.0.0.2") {
		t.Error("it is not asked for proof")
	}
	c.connected(t, "127.0.0.2")
}

// A token of an earlier connection proves nothing: it can be shown many times, by whoever had the address then.
func TestTokensOfEarlierConnectionsProveNothing(t *testing.T) {
	t.Parallel()
	c := makeCell(t, tweak{policy: func(p *policy.Limits) { p.HandshakesBeforeRetry = 1 }})
	tokens := &counting{TokenStore: quic.NewLRUTokenStore(10, 10)}
	dial := func() {
		roots := x509.NewCertPool()
		roots.AddCert(c.ca.Certificate())
		conn, err := quic.DialAddr(t.Context(), c.Addr().String(), &tls.Config{RootCAs: roots, NextProtos: []string{ALPN}, MinVersion: tls.VersionTLS13}, &quic.Config{TokenStore: tokens})
		must(t, err)
		t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
		greet(t, conn)
	}
	dial()
	eventually(t, "a token", func() bool { return tokens.put.Load() > 0 })
	c.forger(t, "127.0.0.3").send(initial())
	eventually(t, "a handshake under way", func() bool { _, underway := c.limits.Counts(); return underway == 1 })
	dial()
	if tokens.taken.Load() == 0 {
		t.Fatal("the client had no token to show")
	}
	if n := testutil.ToFloat64(c.metrics.Retries); n != 1 {
		t.Errorf("%v Retries: the token was taken for proof", n)
	}
}

type counting struct {
	quic.TokenStore
	put, taken atomic.Int64
}

func (s *counting) Put(key string, token *quic.ClientToken) {
	s.TokenStore.Put(key, token)
	s.put.Add(1)
}

func (s *counting) Pop(key string) *quic.ClientToken {
	token := s.TokenStore.Pop(key)
	if token != nil {
		s.taken.Add(1)
	}
	return token
}

// relay stands between a client and the cell and sees the connection ids.
type relay struct {
	front *net.UDPConn
	back  *net.UDPConn
	mu    sync.Mutex
	id    []byte // Of the cell, in the client's latest short header.
}

func (c *cell) relay(t *testing.T) *relay {
	t.Helper()
	front, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	back, err := net.DialUDP("udp", nil, c.Addr().(*net.UDPAddr))
	must(t, err)
	r := &relay{front: front, back: back}
	var client atomic.Pointer[net.UDPAddr]
	var both sync.WaitGroup
	both.Go(func() {
		b := make([]byte, 2000)
		for {
			n, from, err := front.ReadFromUDP(b)
			if err != nil {
				return
			}
			client.Store(from)
			if b[0]&0x80 == 0 && n > 1+connectionIDSize {
				r.mu.Lock()
				r.id = append([]byte(nil), b[1:1+connectionIDSize]...)
				r.mu.Unlock()
			}
			_, _ = back.Write(b[:n])
		}
	})
	both.Go(func() {
		b := make([]byte, 2000)
		for {
			n, err := back.Read(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if to := client.Load(); err == nil && to != nil {
				_, _ = front.WriteToUDP(b[:n], to)
			}
		}
	})
	t.Cleanup(func() {
		must(t, front.Close())
		must(t, back.Close())
		both.Wait()
	})
	return r
}

// Nobody who has seen a live connection's id can have the cell tell him the token that would end it.
func TestNoStatelessResetForALiveConnection(t *testing.T) {
	t.Parallel()
	c := makeCell(t, tweak{})
	r := c.relay(t)
	roots := x509.NewCertPool()
	roots.AddCert(c.ca.Certificate())
	conn, err := quic.DialAddr(t.Context(), r.front.LocalAddr().String(), &tls.Config{RootCAs: roots, NextProtos: []string{ALPN}, MinVersion: tls.VersionTLS13}, nil)
	must(t, err)
	defer conn.CloseWithError(0, "") //nolint:errcheck // the test's end.
	stream := greet(t, conn)
	must(t, hello(stream)) // By now the client sends short headers.
	r.mu.Lock()
	id := r.id
	r.mu.Unlock()
	if len(id) != connectionIDSize {
		t.Fatalf("connection id %x", id)
	}
	f := c.forger(t, "127.0.0.9")
	packet := func(id []byte) []byte {
		b := make([]byte, 200)
		rand.Read(b)
		b[0] = 0x40
		copy(b[1:], id)
		return b
	}
	for range 10 {
		f.send(packet(id))
	}
	if b := f.answer(300 * time.Millisecond); b != nil {
		t.Errorf("%d bytes were answered", len(b))
	}
	must(t, hello(stream))
	f.send(packet([]byte("nobody's"))) // Of a connection that is not there the token may be known: it ends nothing.
	if b := f.answer(patience); len(b) != 42 {
		t.Errorf("%d bytes were answered for an unknown connection", len(b))
	}
}

// After a flood everything is as it was before.
func TestAFloodLeavesNothingBehind(t *testing.T) {
	c := makeCell(t, tweak{policy: func(p *policy.Limits) { p.ConnectionsPerIP, p.HandshakesBeforeRetry = 10, 32 }})
	probe, err := c.dial(t, nil)
	must(t, err)
	stream := greet(t, probe)
	c.places(t, 1)
	c.flood(t) // What is made once and kept, pools and buffers, is there now.
	goroutines, heap := c.settled(t)
	for range 2 {
		c.flood(t)
	}
	if c.refusals("rate") == 0 {
		t.Error("nobody was refused")
	}
	must(t, hello(stream))
	const most = 2 << 20
	var after int
	var grown uint64
	for range 20 { // What a busy machine has not come to yet is no leak.
		if after, grown = c.settled(t); after <= goroutines+5 && grown <= heap+most {
			return
		}
	}
	t.Errorf("%d goroutines, before %d; %d KiB are in use, before %d", after, goroutines, grown>>10, heap>>10)
}

// settled waits until one connection is left, and counts.
func (c *cell) settled(t *testing.T) (goroutines int, heap uint64) {
	t.Helper()
	c.places(t, 1)
	time.Sleep(300 * time.Millisecond) // Closed connections answer late packets for a while.
	runtime.GC()
	runtime.GC() // What pools let go.
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return runtime.NumGoroutine(), m.HeapAlloc
}

// flood begins handshakes that lead nowhere, and makes connections as fast as it is let.
func (c *cell) flood(t *testing.T) {
	t.Helper()
	f := c.forger(t, "127.0.0.2")
	for range 3000 {
		f.send(initial())
	}
	must(t, f.socket.Close())
	var transports []*quic.Transport
	for _, ip := range []string{"127.0.0.3", "127.0.0.4", "127.0.0.5"} {
		socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)})
		must(t, err)
		transports = append(transports, &quic.Transport{Conn: socket})
	}
	var all sync.WaitGroup
	for _, transport := range transports {
		for range 4 {
			all.Go(func() {
				for range 15 {
					if conn, err := c.dialOn(t, transport); err == nil {
						_ = conn.CloseWithError(0, "")
					}
				}
			})
		}
	}
	all.Wait()
	for _, transport := range transports {
		must(t, transport.Close())
		must(t, transport.Conn.Close())
	}
}
