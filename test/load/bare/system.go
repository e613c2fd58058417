package bare

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/internal/pki"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/test/load/peer"
)

// Command is the first argument with which a program has to call Main.
const Command = "bare-relay"

// numberSize is what of a frame its sender is answered with.
const numberSize = 8

// ready begins the line that tells the address.
const ready = "bare relay is ready at "

// Main runs a relay with the files of its certificate and key, until ctx ends.
func Main(ctx context.Context, certFile, keyFile string) error {
	return Relay(ctx, certFile, keyFile, func(address string) { _, _ = os.Stdout.WriteString(ready + address + "\n") })
}

// Options say what to run.
type Options struct {
	Name string
	Dir  string // For its certificate and log.
	CA   *pki.CA
	Size int // Bytes of each frame that it relays.
}

// System is a relay in a process of its own: this program, called again.
type System struct {
	name   string
	size   int
	server *peer.Server
	addr   string
	tls    *tls.Config
}

// Start starts a relay.
func Start(ctx context.Context, o Options) (*System, error) {
	in := func(name string) string { return filepath.Join(o.Dir, name) }
	cert, key, err := o.CA.IssueServer([]string{"127.0.0.1"}, time.Now(), 24*time.Hour)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.WriteFile(in("tls.crt"), cert, 0o600), os.WriteFile(in("tls.key"), key, 0o600)); err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(o.CA.Certificate())
	s := &System{name: o.Name, size: o.Size, tls: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, ServerName: "127.0.0.1", NextProtos: []string{alpn}}}
	s.server, err = peer.StartServer(ctx, in("log"), func(line []byte) bool {
		address, ok := strings.CutPrefix(string(line), ready)
		s.addr = address
		return ok
	}, program, Command, in("tls.crt"), in("tls.key"))
	return s, err
}

// Name implements peer.System.
func (s *System) Name() string { return s.name }

// Processes implements peer.System.
func (s *System) Processes() []int { return []int{s.server.PID()} }

// Counters implements peer.System: nothing is stored.
func (s *System) Counters(context.Context) (peer.Counters, error) {
	return peer.Counters{Syncs: -1, WALBytes: -1, Stored: -1}, nil
}

// Close implements peer.System.
func (s *System) Close() error { return s.server.Stop() }

// session is a connection for each sender and each device.
type session struct {
	size    int
	conns   []*quic.Conn
	senders []*sender
	running sync.WaitGroup
}

// Open implements peer.System.
func (s *System) Open(ctx context.Context, t peer.Topology, deliver peer.Deliver) (peer.Session, error) {
	n := &session{size: s.size}
	for pair := range t.Pairs {
		if err := n.addPair(ctx, s, t, pair, deliver); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	return n, nil
}

func (n *session) addPair(ctx context.Context, s *System, t peer.Topology, pair int, deliver peer.Deliver) error {
	for device := range t.Devices {
		stream, err := n.dial(ctx, s, t, pair, roleRecipient)
		if err != nil {
			return err
		}
		n.running.Go(func() {
			receive(stream, func(b []byte) { deliver(pair, device, b[numberSize:numberSize+peer.ContentSize]) })
		})
	}
	stream, err := n.dial(ctx, s, t, pair, roleSender)
	if err != nil {
		return err
	}
	p := &sender{stream: stream, waiting: map[uint64]func(error){}}
	n.senders = append(n.senders, p)
	n.running.Go(func() { receive(stream, p.answered) })
	return nil
}

// dial connects somebody of a pair, and returns when the relay knows of him.
func (n *session) dial(ctx context.Context, s *System, t peer.Topology, pair int, role byte) (*quic.Stream, error) {
	q, err := quic.DialAddr(ctx, s.addr, s.tls, config())
	if err != nil {
		return nil, err
	}
	n.conns = append(n.conns, q)
	stream, err := q.OpenStream()
	if err != nil {
		return nil, err
	}
	who := uint32(t.Devices)<<16 | uint32(pair) //nolint:gosec // both are small. Topologies may be open at the same time.
	if _, err := stream.Write(frame(append(binary.BigEndian.AppendUint32(nil, who), role))); err != nil {
		return nil, err
	}
	_, err = readFrame(stream, nil)
	return stream, err
}

// receive reads frames until the connection ends.
func receive(stream *quic.Stream, take func([]byte)) {
	r := bufio.NewReaderSize(stream, maxFrame)
	var buf []byte
	var err error
	for {
		if buf, err = readFrame(r, buf); err != nil {
			return
		}
		take(buf)
	}
}

type sender struct {
	stream *quic.Stream

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]func(error)
}

func (p *sender) answered(b []byte) {
	n := binary.BigEndian.Uint64(b)
	p.mu.Lock()
	done := p.waiting[n]
	delete(p.waiting, n)
	p.mu.Unlock()
	done(nil)
}

// Publish implements peer.Session.
func (n *session) Publish(pair int, _ ids.ID, content []byte, done func(error)) error {
	p := n.senders[pair]
	p.mu.Lock()
	p.last++
	number := p.last
	p.waiting[number] = done
	p.mu.Unlock()
	b := make([]byte, max(n.size-frameHead, numberSize+len(content)))
	binary.BigEndian.PutUint64(b, number)
	copy(b[numberSize:], content)
	_, err := p.stream.Write(frame(b))
	return err
}

// Close implements peer.Session.
func (n *session) Close() error {
	for _, q := range n.conns {
		_ = q.CloseWithError(0, "")
	}
	n.running.Wait()
	return nil
}
