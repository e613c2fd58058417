package server_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/schema/opaqueconf"
	"quicproquo.dev/schema/wire"
)

func isRefused(err error) bool {
	var e *quic.TransportError
	return errors.As(err, &e) && e.Remote && e.ErrorCode == quic.ConnectionRefused
}

// from connects from an address and says hello.
func from(t testing.TB, c *celltest.Cell, ip string) *celltest.Conn {
	t.Helper()
	conn, err := c.DialFrom(t, ip)
	if err != nil {
		t.Fatalf("from %s: %v", ip, err)
	}
	celltest.Must[*wire.HelloResponse](conn, &wire.HelloRequest{MinVersion: 1, MaxVersion: 1})
	return conn
}

// metric reads one number off the ops port; 0 when it is not there.
func metric(t testing.TB, c *celltest.Cell, name string) float64 {
	t.Helper()
	for line := range strings.Lines(c.Ops(t, "/metrics")) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(celltest.Patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

// The defaults of the product: 50 connections of an address, no more.
func TestFiftyConnectionsOfAnAddress(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	var open []*celltest.Conn
	for range 50 {
		open = append(open, from(t, c, "127.0.0.2"))
	}
	if _, err := c.DialFrom(t, "127.0.0.2"); !isRefused(err) {
		t.Fatalf("the 51st: %v", err)
	}
	from(t, c, "127.0.0.3")
	if n := metric(t, c, "qpq_connections"); n != 51 {
		t.Errorf("%v connections are counted", n)
	}
	if n := metric(t, c, `qpq_connections_refused_total{reason="address"}`); n != 1 {
		t.Errorf("%v refusals are counted", n)
	}
	for _, conn := range open[:10] {
		conn.Close()
	}
	eventually(t, "places are given back", func() bool { return metric(t, c, "qpq_connections") == 41 })
	for range 10 {
		from(t, c, "127.0.0.2")
	}
	for _, conn := range open[10:] {
		alive(t, conn)
	}
}

func TestANewPolicyOfConnections(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.WithPolicy(func(p *policy.Policy) { p.Limits.ConnectionsPerIP = 2 }))
	first := from(t, c, "127.0.0.2")
	from(t, c, "127.0.0.2")
	refused := func() {
		t.Helper()
		if _, err := c.DialFrom(t, "127.0.0.2"); !isRefused(err) {
			t.Fatalf("want a refusal, got %v", err)
		}
	}
	use := func(change func(*policy.Policy)) {
		t.Helper()
		c.WritePolicy(t, policyWith(t, change))
		c.Reload(t)
	}
	refused()
	use(func(p *policy.Policy) { p.Limits.ConnectionsPerIP = 3 })
	from(t, c, "127.0.0.2")
	refused()
	use(func(p *policy.Policy) {
		p.Limits.ConnectionsPerIP = 1
		p.Limits.TrustedRanges = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
	})
	from(t, c, "127.0.0.2")
	use(func(p *policy.Policy) { p.Limits.ConnectionsPerIP = 1 })
	refused()
	alive(t, first) // Who is in stays in.
}

// The whole of F1.3's and S6's rate: 50 requests a second of an account, over all its connections, after a burst of 100.
func TestFiftyRequestsASecondOfAnAccount(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice := c.Signup(t, "alice")
	conns := []*celltest.Conn{alice.Conn}
	for range 2 {
		alice.Reconnect(c)
		conns = append(conns, alice.Conn)
	}
	begin := time.Now()
	passed, refused := 0, 0
	for i := 0; refused < 20 && i < 5000; i++ {
		_, err := conns[i%len(conns)].Call(&wire.KeyPackageStatusRequest{})
		switch {
		case err == nil:
			passed++
		case wire.HasCode(err, wire.CodeRateLimited):
			refused++
		default:
			t.Fatal(err)
		}
	}
	if most := 100 + 50*time.Since(begin).Seconds() + 2; float64(passed) > most || passed < 95 || refused == 0 {
		t.Errorf("%d passed and %d were refused; at most %.0f may pass", passed, refused, most)
	}
	bob := c.Signup(t, "bob") // Others are not concerned.
	celltest.Must[*wire.KeyPackageStatus](bob.Conn, &wire.KeyPackageStatusRequest{})
}

// The order of checks: connection bucket, dedup, quota.
func TestADuplicateIsAnsweredWhenTheQuotaIsUsedUp(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.WithPolicy(func(p *policy.Policy) { p.Limits.RequestsPerSecond, p.Limits.RequestBurst = 1, 60 }))
	alice, _, dm, _ := pair(t, c)
	first := dm.Message(t, "first")
	stored := celltest.Must[*wire.EnqueueResponse](alice.Conn, first)
	again := func() *celltest.Conn {
		conn := c.Dial(t)
		celltest.Must[*wire.AuthenticateResponse](conn, &wire.AuthenticateRequest{AccessToken: alice.Session.AccessToken, Proof: alice.Proof(conn)})
		return conn
	}
	fresh := dm.Message(t, strings.Repeat("x", 3<<20)) // Takes more than comes back while the test runs.
	spender := again()
	for i := 0; ; i++ { // Uses up the account's quota.
		if _, err := spender.Call(&wire.KeyPackageStatusRequest{}); err != nil {
			break
		}
		if i > 100 {
			t.Fatal("the account has no quota")
		}
	}
	other := again()
	for range 3 {
		got := celltest.Must[*wire.EnqueueResponse](other, first)
		if !got.Duplicate || got.Seq != stored.Seq {
			t.Fatalf("%+v", got)
		}
		if e := other.Refused(fresh, wire.CodeRateLimited); e.RetryAfter <= 0 || e.Details[0].Value != "account" {
			t.Fatalf("%+v", e)
		}
	}
	used := *first
	used.Payload = bytes.Clone(first.Payload)
	used.Payload[len(used.Payload)-1] ^= 1
	other.Refused(&used, wire.CodeDeliveryIDReused) // Also without quota a fault is told as what it is.
	c.WritePolicy(t, policyWith(t, func(p *policy.Policy) { p.Limits.RequestBurst = 200 }))
	c.Reload(t)
	if got := celltest.Must[*wire.EnqueueResponse](again(), fresh); got.Duplicate || got.Seq != stored.Seq+1 {
		t.Fatalf("%+v", got)
	}
	for _, path := range []string{`qpq_requests_limited_total{bucket="account"}`, `qpq_enqueued_total{result="refused"}`} {
		if metric(t, c, path) < 3 {
			t.Errorf("%s is %v", path, metric(t, c, path))
		}
	}
}

func TestSixtyLoginsAMinuteOfAnAddress(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	client, err := opaqueconf.Configuration().Client()
	if err != nil {
		t.Fatal(err)
	}
	request, err := client.RegistrationInit([]byte("password"))
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	passed := 0
	var last error
	for i := range 13 {
		conn := from(t, c, "127.0.0.2")
		for j := range 5 {
			_, err := conn.Call(&wire.SignupStartRequest{Name: fmt.Sprintf("name%d.%d", i, j), RegistrationRequest: request.Serialize()})
			if err != nil {
				last = err
				continue
			}
			passed++
		}
		conn.Close()
	}
	var e *wire.Error
	if most := 61 + int(time.Since(begin).Seconds()); passed < 60 || passed > most || !errors.As(last, &e) || e.Code != wire.CodeRateLimited || e.Details[0].Value != "logins" {
		t.Errorf("%d passed, then %v", passed, last)
	}
	c.SignupAt(t, from(t, c, "127.0.0.3"), "alice")
}

func TestLookupsOfAnAccount(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice := c.Signup(t, "alice")
	begin := time.Now()
	passed := 0
	for i := range 80 {
		_, err := alice.Conn.Call(&wire.GetAccountRequest{Name: fmt.Sprint("somebody", i)})
		if wire.HasCode(err, wire.CodeNotFound) {
			passed++
		} else if !wire.HasCode(err, wire.CodeRateLimited) {
			t.Fatal(err)
		}
	}
	if most := 61 + int(time.Since(begin).Seconds()); passed < 60 || passed > most {
		t.Errorf("%d names were looked up", passed)
	}
	celltest.Must[*wire.KeyPackageStatus](alice.Conn, &wire.KeyPackageStatusRequest{})
}

func makeKE1(t testing.TB) []byte {
	t.Helper()
	client, err := opaqueconf.Configuration().Client()
	if err != nil {
		t.Fatal(err)
	}
	ke1, err := client.GenerateKE1([]byte("a guess"))
	if err != nil {
		t.Fatal(err)
	}
	return ke1.Serialize()
}

// logins logs alice in n times, on fresh connections, and returns how long each took.
func logins(t *testing.T, c *celltest.Cell, alice *celltest.Person, n int) []time.Duration {
	t.Helper()
	var took []time.Duration
	for range n {
		begin := time.Now()
		conn := c.Dial(t)
		if _, err := alice.LoginOn(conn, "alice", alice.Password); err != nil {
			t.Fatal(err)
		}
		celltest.Must[*wire.Session](conn, &wire.StartSessionRequest{Certificate: alice.Certificate.Marshal(), DeviceName: "test", Proof: alice.Proof(conn)})
		took = append(took, time.Since(begin))
		conn.Close()
	}
	slices.Sort(took)
	return took
}

// p99 of few is nearly the longest; the one longest is left to chance.
func p99(sorted []time.Duration) time.Duration { return sorted[len(sorted)-2] }

// flood does something hostile until stop is closed; wait returns when it has ended.
type flood func(t *testing.T, c *celltest.Cell, stop <-chan struct{}) (sent *atomic.Int64, wait func())

func floods() map[string]flood {
	return map[string]flood{
		"first packets that lead nowhere": floodOfInitials,
		"login starts":                    floodOfLoginStarts,
		"handshakes":                      floodOfHandshakes,
	}
}

// every runs f at a steady pace, a bounded number of times, until stop is closed.
func every(stop <-chan struct{}, pace time.Duration, f func() bool) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for range 60_000 {
		select {
		case <-stop:
			return
		case <-tick.C:
			if !f() {
				return
			}
		}
	}
}

// floodOfInitials writes anybody's address on packets that begin handshakes and never answers.
func floodOfInitials(t *testing.T, c *celltest.Cell, stop <-chan struct{}) (*atomic.Int64, func()) {
	var sent atomic.Int64
	var all sync.WaitGroup
	for i := range 20 {
		to, err := net.ResolveUDPAddr("udp", c.Addr)
		if err != nil {
			t.Fatal(err)
		}
		socket, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 1, byte(i+1))}, to)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			defer socket.Close()
			every(stop, 20*time.Millisecond, func() bool { // 1,000 a second in all.
				_, err := socket.Write(initial())
				sent.Add(1)
				return err == nil
			})
		})
	}
	return &sent, all.Wait
}

// initial is the first packet of a connection, with a payload that nobody can decrypt.
func initial() []byte {
	b := make([]byte, 1200)
	rand.Read(b)
	b[0] = 0xc0
	binary.BigEndian.PutUint32(b[1:], uint32(quic.Version1))
	b[5], b[14], b[23] = 8, 8, 0
	binary.BigEndian.PutUint16(b[24:], 0x4000|(1200-26))
	return b
}

// floodOfLoginStarts sends KE1 without end, on many connections of several addresses, whatever is answered.
func floodOfLoginStarts(t *testing.T, c *celltest.Cell, stop <-chan struct{}) (*atomic.Int64, func()) {
	var sent atomic.Int64
	var all sync.WaitGroup
	b, err := wire.Marshal(wire.Envelope{CorrelationID: 9, Body: &wire.LoginStartRequest{Name: "mallory", KE1: makeKE1(t)}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		dial, closeAll := c.Dialer(t, fmt.Sprintf("127.0.2.%d", i+1))
		var here sync.WaitGroup
		for range 4 {
			here.Go(func() { floodOn(t, dial, b, stop, &sent) })
		}
		all.Go(func() {
			here.Wait()
			closeAll()
		})
	}
	return &sent, all.Wait
}

// floodOn writes the same frame to one connection after the other, and reads whatever comes.
func floodOn(t *testing.T, dial func(context.Context) (*quic.Conn, error), frame []byte, stop <-chan struct{}, sent *atomic.Int64) {
	q, err := dial(context.Background())
	if err != nil {
		t.Errorf("the flood cannot begin: %v", err)
		return
	}
	stream, err := q.OpenStream()
	if err != nil {
		t.Error(err)
		return
	}
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(io.Discard, stream) })
	every(stop, 50*time.Millisecond, func() bool { // 400 a second in all; 5 are let through.
		_ = stream.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		_, err := stream.Write(frame)
		sent.Add(1)
		return err == nil || isTimeout(err)
	})
	_ = q.CloseWithError(0, "")
	reading.Wait()
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// floodOfHandshakes connects and leaves, from several addresses, as fast as it is let.
func floodOfHandshakes(t *testing.T, c *celltest.Cell, stop <-chan struct{}) (*atomic.Int64, func()) {
	var sent atomic.Int64
	var all sync.WaitGroup
	for i := range 3 {
		dial, closeAll := c.Dialer(t, fmt.Sprintf("127.0.3.%d", i+1))
		all.Go(func() {
			defer closeAll()
			every(stop, 10*time.Millisecond, func() bool { // 300 a second in all.
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				if q, err := dial(ctx); err == nil {
					_ = q.CloseWithError(0, "")
				}
				sent.Add(1)
				return true
			})
		})
	}
	return &sent, all.Wait
}

// Logins of honest people go on as if nothing was while the cell is flooded: p99 stays within three times what it is in
// quiet. Clients, cell, database and flood share this machine's processors, so that the best of a few rounds counts.
func TestLoginsGoOnInAFlood(t *testing.T) { //nolint:paralleltest // It measures.
	for name, f := range floods() {
		t.Run(name, func(t *testing.T) {
			c := celltest.New(t, celltest.WithPolicy(func(p *policy.Policy) {
				p.Limits.TrustedRanges = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} // The honest ones; the flood is not.
				p.Limits.ConnectionsPerIP, p.Limits.HandshakesBeforeRetry = 10, 32             // It is soon one.
			}))
			alice := c.Signup(t, "alice")
			c.Signup(t, "mallory")
			logins(t, c, alice, 5)
			const n, rounds = 40, 8
			best, quickest, slowest := 1e9, time.Hour, time.Duration(0)
			for round := range rounds {
				quiet := logins(t, c, alice, n)
				quickest, slowest = min(quickest, p99(quiet)), max(slowest, p99(quiet))
				stop := make(chan struct{})
				sent, wait := f(t, c, stop)
				eventually(t, "the flood is felt", func() bool { return felt(t, c, name) > 0 })
				flooded := logins(t, c, alice, n)
				close(stop)
				wait()
				ratio := float64(p99(flooded)) / float64(p99(quiet))
				t.Logf("round %d: p99 %.1f ms in quiet, %.1f ms in a flood of %d: %.2f times", round,
					p99(quiet).Seconds()*1e3, p99(flooded).Seconds()*1e3, sent.Load(), ratio)
				if best = min(best, ratio); best <= 3 {
					break
				}
			}
			if best > 3 && slowest > 3*quickest {
				t.Skipf("NOT RUN: what a flood does to logins. The machine is too busy to measure: without one their p99 is between %s and %s", quickest, slowest)
			}
			if best > 3 {
				t.Errorf("p99 is %.1f times what it is in quiet", best)
			}
			if metric(t, c, "qpq_panics_total") != 0 {
				t.Error("something panicked")
			}
		})
	}
}

// felt is how often a flood met the limit that is there for it.
func felt(t *testing.T, c *celltest.Cell, name string) float64 {
	t.Helper()
	signs := map[string]string{
		"first packets that lead nowhere": "qpq_handshake_retries_total",
		"login starts":                    `qpq_requests_limited_total{bucket="logins"}`,
		"handshakes":                      `qpq_connections_refused_total{reason="rate"}`,
	}
	return metric(t, c, signs[name])
}

// After a flood nothing is left of it.
func TestAFloodOfRequestsLeavesNothingBehind(t *testing.T) { //nolint:paralleltest // It counts goroutines.
	c := celltest.New(t)
	alice := c.Signup(t, "alice")
	run := func() {
		stop := make(chan struct{})
		sent, wait := floodOfLoginStarts(t, c, stop)
		eventually(t, "the flood", func() bool { return sent.Load() > 200 })
		close(stop)
		wait()
		eventually(t, "connections end", func() bool { return metric(t, c, "qpq_connections") == 1 })
	}
	run() // What is made once and kept, pools and buffers, is there now.
	goroutines, heap := settled()
	for range 3 {
		run()
	}
	after, grown := settled()
	if after > goroutines+10 {
		t.Errorf("%d goroutines, before %d", after, goroutines)
	}
	if grown > heap+8<<20 {
		t.Errorf("%d KiB more are in use", (grown-heap)>>10)
	}
	for _, gauge := range []string{`qpq_connections_held{by="limits"}`, `qpq_connections_held{by="logins"}`, "qpq_handshakes_in_progress"} {
		if n := metric(t, c, gauge); n != 0 {
			t.Errorf("%s is %v", gauge, n)
		}
	}
	alive(t, alice.Conn)
}

func settled() (goroutines int, heap uint64) {
	time.Sleep(200 * time.Millisecond)
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return runtime.NumGoroutine(), m.HeapAlloc
}
