package server_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/cell/endpoint"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/wire"
)

const (
	// idleEnv is how many connections TestIdleConnections holds; the product's bound is 10,000, which takes minutes.
	idleEnv     = "QPQ_IDLE_CONNECTIONS"
	defaultIdle = 200
	// idlersEnv makes the test binary the clients: CA file, address, number, token and device key.
	idlersEnv = "QPQ_TEST_IDLERS"
	perIdler  = 50 // Connections of one address of a client.
)

// idlers hold authenticated connections until standard input ends.
func idlers() int {
	var ca, address, token, seed string
	var n int
	if _, err := fmt.Sscan(os.Getenv(idlersEnv), &ca, &address, &n, &token, &seed); err != nil {
		fmt.Println(err)
		return 1
	}
	w, err := newIdlers(ca, address, token, seed)
	if err == nil {
		err = w.connect(n)
	}
	fmt.Println("connected:", err)
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	w.leave()
	return 0
}

type idlerSet struct {
	roots  *x509.CertPool
	to     *net.UDPAddr
	token  []byte
	device ed25519.PrivateKey

	mu    sync.Mutex
	conns []*quic.Conn
}

// leave closes all connections.
func (w *idlerSet) leave() {
	if w == nil {
		return
	}
	var all sync.WaitGroup
	for _, c := range w.conns {
		all.Go(func() { _ = c.CloseWithError(0, "") })
	}
	all.Wait()
}

func newIdlers(ca, address, token, seed string) (*idlerSet, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	w := &idlerSet{roots: x509.NewCertPool()}
	w.roots.AppendCertsFromPEM(pem)
	if w.to, err = net.ResolveUDPAddr("udp", address); err != nil {
		return nil, err
	}
	if w.token, err = hex.DecodeString(token); err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(seed)
	w.device = ed25519.NewKeyFromSeed(key)
	return w, err
}

// connect makes n connections, from as many addresses as it takes.
func (w *idlerSet) connect(n int) error {
	var all sync.WaitGroup
	var first atomic.Pointer[error]
	turns := make(chan int, n)
	for i := range n {
		turns <- i
	}
	close(turns)
	transports := make([]*quic.Transport, (n+perIdler-1)/perIdler)
	for i := range transports {
		socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 1, byte(i/250), byte(i%250+1))})
		if err != nil {
			return err
		}
		transports[i] = &quic.Transport{Conn: socket}
	}
	for range 8 {
		all.Go(func() {
			for i := range turns {
				if err := w.one(transports[i/perIdler]); err != nil {
					first.CompareAndSwap(nil, &err)
					return
				}
			}
		})
	}
	all.Wait()
	if err := first.Load(); err != nil {
		return *err
	}
	return nil
}

// one authenticates a connection and leaves it open.
func (w *idlerSet) one(transport *quic.Transport) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := transport.Dial(ctx, w.to, &tls.Config{RootCAs: w.roots, ServerName: "127.0.0.1", NextProtos: []string{endpoint.ALPN}, MinVersion: tls.VersionTLS13}, nil)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.conns = append(w.conns, conn)
	w.mu.Unlock()
	state := conn.ConnectionState().TLS
	exporter, err := state.ExportKeyingMaterial(devicecert.ExporterLabel, nil, devicecert.ExporterSize)
	if err != nil {
		return err
	}
	stream, err := conn.OpenStream()
	if err != nil {
		return err
	}
	b, err := wire.Marshal(wire.Envelope{CorrelationID: 1, Body: &wire.AuthenticateRequest{AccessToken: w.token, Proof: devicecert.Prove(w.device, exporter)}})
	if err != nil {
		return err
	}
	if _, err := stream.Write(b); err != nil {
		return err
	}
	answer, err := frame.Read(stream, frame.ControlLimit)
	if err != nil {
		return err
	}
	e, err := wire.Unmarshal(answer)
	if err != nil {
		return err
	}
	if refusal, ok := e.Body.(*wire.Error); ok {
		return refusal
	}
	return nil
}

// memory is what a process uses, in bytes.
type memory struct{ heap, stack, resident uint64 }

func measure(t *testing.T) memory {
	t.Helper()
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	var kib uint64
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			if _, err := fmt.Sscan(rest, &kib); err != nil {
				t.Fatal(err)
			}
		}
	}
	return memory{m.HeapAlloc, m.StackInuse, kib << 10}
}

// TestIdleConnections holds idle authenticated connections to one cell and tells what each takes. QPQ_IDLE_CONNECTIONS
// says how many: 10,000 is the product's measure.
func TestIdleConnections(t *testing.T) { //nolint:paralleltest // It measures.
	n := defaultIdle
	if v := os.Getenv(idleEnv); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	c := celltest.New(t, celltest.WithPolicy(func(p *policy.Policy) {
		p.Limits.MaxConnections = n + 1
		p.Limits.RequestsPerSecond, p.Limits.RequestBurst = 100_000, 200_000 // All are one account's.
		p.Limits.TrustedRanges = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		p.Sessions.AccessTokenTTL = policy.Duration(time.Hour)
	}))
	alice := c.Signup(t, "alice")
	before, goroutines := measure(t), runtime.NumGoroutine()
	begin := time.Now()
	hang := idle(t, c, alice, n)
	took := time.Since(begin)
	after := measure(t)
	if got := metric(t, c, "qpq_connections"); got != float64(n+1) {
		t.Fatalf("%v connections, want %d", got, n+1)
	}
	each := func(before, after uint64) float64 { return float64(int64(after)-int64(before)) / float64(n) / 1024 } //nolint:gosec // sizes.
	t.Logf("%d idle authenticated connections, made in %s: each %.1f KiB heap, %.1f KiB stack, %.1f KiB resident, %.1f goroutines", n, took.Round(time.Millisecond),
		each(before.heap, after.heap), each(before.stack, after.stack), each(before.resident, after.resident), float64(runtime.NumGoroutine()-goroutines)/float64(n))
	if kib := each(before.heap+before.stack, after.heap+after.stack); kib > 128 {
		t.Errorf("a connection takes %.1f KiB", kib)
	}
	if _, err := c.DialFrom(t, "127.9.9.9"); !isRefused(err) {
		t.Errorf("one more than may be, from a trusted address: %v", err)
	}
	call := time.Now()
	celltest.Must[*wire.KeyPackageStatus](alice.Conn, &wire.KeyPackageStatusRequest{})
	t.Logf("a request beside them takes %s", time.Since(call))
	hang()
	eventually(t, "they are gone", func() bool { return metric(t, c, "qpq_connections") == 1 })
	left := measure(t)
	t.Logf("when they have gone: %.1f KiB heap for each", each(before.heap, left.heap))
}

// idle starts a process that connects n times, and returns what ends it.
func idle(t *testing.T, c *celltest.Cell, p *celltest.Person, n int) (hang func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d %x %x", idlersEnv, c.CAFile(), c.Addr, n, p.Session.AccessToken, p.Device.Seed()))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	hang = func() {
		once.Do(func() {
			_ = in.Close()
			kill := time.AfterFunc(celltest.Patience, func() { _ = cmd.Process.Kill() })
			defer kill.Stop()
			_ = cmd.Wait()
		})
	}
	t.Cleanup(hang)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "connected: <nil>" {
		t.Fatalf("%v %s", err, line)
	}
	return hang
}
