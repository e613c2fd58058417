// Package bare is what a cell's pushes are measured against: a relay that does nothing but read a frame from one QUIC
// connection and write it to others. It stores nothing, knows nobody, and is told nothing back.
package bare

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// As the cell has it.
const (
	alpn         = "bare"
	idle         = 45 * time.Second
	streamWindow = 256 << 10
	connWindow   = 1 << 20
)

func config() *quic.Config {
	return &quic.Config{MaxIdleTimeout: idle, KeepAlivePeriod: idle / 3, InitialStreamReceiveWindow: streamWindow, InitialConnectionReceiveWindow: connWindow}
}

const (
	roleSender, roleRecipient = 0, 1
	frameHead                 = 4
	maxFrame                  = 64 << 10
)

// relay knows each pair's recipients.
type relay struct {
	mu         sync.RWMutex
	recipients map[uint32][]*quic.Stream
}

// Relay serves until ctx ends. ready is told the address that it listens on.
func Relay(ctx context.Context, certFile, keyFile string, ready func(address string)) error {
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer conn.Close()
	l, err := quic.Listen(conn, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{alpn}}, config())
	if err != nil {
		return err
	}
	defer l.Close()
	ready(conn.LocalAddr().String())
	r := &relay{recipients: map[uint32][]*quic.Stream{}}
	for {
		q, err := l.Accept(ctx)
		if err != nil {
			return ctx.Err()
		}
		go func() { _ = q.CloseWithError(0, r.serve(ctx, q).Error()) }()
	}
}

// serve returns when the connection ends: always with an error.
func (r *relay) serve(ctx context.Context, q *quic.Conn) error {
	s, err := q.AcceptStream(ctx)
	if err != nil {
		return err
	}
	hello, err := readFrame(s, nil)
	if err != nil {
		return err
	}
	if len(hello) != 5 {
		return errors.New("no hello")
	}
	pair := binary.BigEndian.Uint32(hello)
	if hello[4] == roleRecipient {
		r.mu.Lock()
		r.recipients[pair] = append(r.recipients[pair], s)
		r.mu.Unlock()
	}
	if _, err := s.Write(frame(hello)); err != nil {
		return err
	}
	if hello[4] == roleRecipient {
		_, err := readFrame(s, nil) // Until it goes.
		r.remove(pair, s)
		return cause(err)
	}
	var buf []byte
	for {
		if buf, err = readFrame(s, buf); err != nil {
			return cause(err)
		}
		if err := r.push(pair, buf, s); err != nil {
			return err
		}
	}
}

func cause(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

// push writes a frame to every recipient, and then the first bytes of it, its number, to the sender.
func (r *relay) push(pair uint32, b []byte, sender *quic.Stream) error {
	f := frame(b)
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, s := range r.recipients[pair] {
		if _, err := s.Write(f); err != nil {
			return fmt.Errorf("a recipient: %w", err)
		}
	}
	_, err := sender.Write(frame(b[:min(len(b), numberSize)]))
	return err
}

func (r *relay) remove(pair uint32, gone *quic.Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var rest []*quic.Stream
	for _, s := range r.recipients[pair] {
		if s != gone {
			rest = append(rest, s)
		}
	}
	r.recipients[pair] = rest
}

// frame puts a length before b.
func frame(b []byte) []byte {
	f := binary.BigEndian.AppendUint32(make([]byte, 0, frameHead+len(b)), uint32(len(b))) //nolint:gosec // at most maxFrame.
	return append(f, b...)
}

// readFrame reads one frame, into buf if it has room.
func readFrame(r io.Reader, buf []byte) ([]byte, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n > maxFrame {
		return nil, fmt.Errorf("a frame of %d bytes", n)
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	_, err := io.ReadFull(r, buf)
	return buf, err
}
