package endpoint

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/cell/policy"
)

// clientsEnv makes the test binary the clients of a benchmark, so that the server's processor time is the process's.
const clientsEnv = "QPQ_TEST_CLIENTS"

// clients dial as they are told on standard input: an address and a number a line. They answer each with how many
// connections came up and how many were refused. The CA is in the file that the environment names.
func clients() int {
	ca, err := os.ReadFile(os.Getenv(clientsEnv))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var address string
		var n int
		if _, err := fmt.Sscan(lines.Text(), &address, &n); err != nil {
			fmt.Println(err)
			return 1
		}
		up, refused := dialMany(address, n, roots)
		fmt.Println(up, refused)
	}
	return 0
}

// dialMany connects and leaves, n times, a few at a time.
func dialMany(address string, n int, roots *x509.CertPool) (up, refused int) {
	to, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return 0, 0
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	left := make(chan struct{}, n)
	for range n {
		left <- struct{}{}
	}
	close(left)
	for range 4 {
		all.Go(func() {
			socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				return
			}
			transport := &quic.Transport{Conn: socket}
			defer socket.Close()
			defer transport.Close()
			for range left {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				conn, err := transport.Dial(ctx, to, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", NextProtos: []string{ALPN}, MinVersion: tls.VersionTLS13}, nil)
				cancel()
				mu.Lock()
				switch {
				case err == nil:
					up++
				case isRefused(err):
					refused++
				}
				mu.Unlock()
				if err == nil {
					_ = conn.CloseWithError(0, "")
				}
			}
		})
	}
	all.Wait()
	return up, refused
}

// crowd is a process of clients.
type crowd struct {
	in  io.WriteCloser
	out *bufio.Reader
}

func makeCrowd(b testing.TB, c *cell) *crowd {
	b.Helper()
	file := c.path("ca.pem")
	must(b, os.WriteFile(file, c.ca.CertPEM(), 0o600))
	self, err := os.Executable()
	must(b, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), clientsEnv+"="+file)
	in, err := cmd.StdinPipe()
	must(b, err)
	out, err := cmd.StdoutPipe()
	must(b, err)
	must(b, cmd.Start())
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return &crowd{in, bufio.NewReader(out)}
}

// send has n clients dial, and returns what of this process's processor time it took for each.
func (w *crowd) send(b testing.TB, address net.Addr, n, wantUp int) time.Duration {
	b.Helper()
	begin := cpuTime(b)
	_, err := fmt.Fprintf(w.in, "%s %d\n", address, n)
	must(b, err)
	line, err := w.out.ReadString('\n')
	must(b, err)
	var up, refused int
	_, err = fmt.Sscan(strings.TrimSpace(line), &up, &refused)
	must(b, err)
	if up > wantUp || refused > n-wantUp || up+refused < n*9/10 { // On a busy machine some may give up.
		b.Fatalf("of %d clients %d came up and %d were refused, want %d up", n, up, refused, wantUp)
	}
	return (cpuTime(b) - begin) / time.Duration(n)
}

func cpuTime(b testing.TB) time.Duration {
	b.Helper()
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// bare is quic-go alone with the same TLS and settings.
func (c *cell) bare(b testing.TB) net.Addr {
	b.Helper()
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(b, err)
	transport := &quic.Transport{Conn: socket}
	l, err := transport.Listen(TLSConfig(c.cert, NoClients()), settings())
	must(b, err)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			all.Go(func() { <-conn.Context().Done() })
		}
	})
	b.Cleanup(func() {
		must(b, errors.Join(l.Close(), transport.Close(), socket.Close()))
		all.Wait()
	})
	return socket.LocalAddr()
}

// BenchmarkHandshake compares, in turns, the processor time that a server spends on a handshake: quic-go alone, a cell,
// and a cell that refuses because it is full, or because the address has too many.
func BenchmarkHandshake(b *testing.B) {
	wide := func(p *policy.Limits) { p.ConnectionsPerIP, p.MaxConnections = 100_000, 1_000_000 }
	c := makeCell(b, tweak{policy: wide})
	full := makeCell(b, tweak{policy: func(p *policy.Limits) { p.MaxConnections = 1 }})
	crowded := makeCell(b, tweak{policy: func(p *policy.Limits) { p.ConnectionsPerIP = 1 }})
	w := makeCrowd(b, c)
	for _, x := range []*cell{full, crowded} {
		conn, err := x.dial(b, nil)
		must(b, err)
		x.places(b, 1)
		defer conn.CloseWithError(0, "") //nolint:errcheck // the benchmark's end.
	}
	bare := c.bare(b)
	const n = 200
	w.send(b, bare, n, n) // To warm up.
	w.send(b, c.Addr(), n, n)
	var sum [4]time.Duration
	rounds := 0
	for b.Loop() {
		rounds++
		sum[0] += w.send(b, bare, n, n)
		sum[1] += w.send(b, c.Addr(), n, n)
		sum[2] += w.send(b, full.Addr(), n, 0)
		sum[3] += w.send(b, crowded.Addr(), n, 0)
	}
	each := func(i int) float64 { return float64(sum[i].Microseconds()) / float64(rounds) }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(each(0), "bare-µs")
	b.ReportMetric(each(1), "cell-µs")
	b.ReportMetric(each(1)/each(0), "cell/bare")
	b.ReportMetric(each(2)/each(1), "full/cell")
	b.ReportMetric(each(3)/each(1), "crowded/cell")
}

// The same, coarsely, where it must hold on any machine.
func TestARefusalIsCheap(t *testing.T) { //nolint:paralleltest // It measures.
	c := makeCell(t, tweak{policy: func(p *policy.Limits) { p.ConnectionsPerIP, p.MaxConnections = 100_000, 1_000_000 }})
	full := makeCell(t, tweak{policy: func(p *policy.Limits) { p.MaxConnections = 1 }})
	w := makeCrowd(t, c)
	conn, err := full.dial(t, nil)
	must(t, err)
	defer conn.CloseWithError(0, "") //nolint:errcheck // the test's end.
	full.places(t, 1)
	const n = 50
	w.send(t, c.Addr(), n, n)
	best := 1.0
	for range 5 {
		best = min(best, float64(w.send(t, full.Addr(), n, 0))/float64(w.send(t, c.Addr(), n, n)))
		if best <= 0.2 {
			return
		}
	}
	t.Errorf("a refusal takes %.2f of a handshake's processor time, want a fifth at most", best)
}
