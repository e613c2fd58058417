package conn

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/schema/wire"
)

// refusing is a cell that takes no connection, before the handshake or after it.
func refusing(t *testing.T, a *authority, after bool) (endpoint string) {
	t.Helper()
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	transport := &quic.Transport{Conn: socket}
	if !after {
		transport.ConnContext = func(context.Context, *quic.ClientInfo) (context.Context, error) { return nil, errors.New("full") }
	}
	l, err := transport.Listen(serverTLS(a.issue(t, "127.0.0.1", time.Now().Add(time.Hour))), nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			_ = c.CloseWithError(closeFull, "too many")
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
		_ = transport.Close()
		_ = socket.Close()
	})
	return socket.LocalAddr().String()
}

func TestARefusedConnectionIsToldAsOne(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]bool{"before the handshake": false, "after it": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := makeAuthority(t)
			endpoint := refusing(t, a, after)
			c, err := Dial(t.Context(), Options{Endpoint: endpoint, Trust: a.trust(t)})
			if c != nil {
				c.Close()
			}
			var refused *RefusedError
			if !errors.As(err, &refused) || !Transient(err) || !strings.Contains(err.Error(), endpoint) || !strings.Contains(err.Error(), "try again") {
				t.Errorf("%v", err)
			}
		})
	}
}

// Only the cell's own refusal is one.
func TestWhatIsNoRefusal(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"our own close":   &quic.ApplicationError{ErrorCode: closeFull},
		"another code":    &quic.ApplicationError{ErrorCode: 5, Remote: true},
		"another failure": &quic.TransportError{ErrorCode: quic.InternalError, Remote: true},
		"our own failure": &quic.TransportError{ErrorCode: quic.ConnectionRefused},
		"an answer":       wire.RetryAfterf(wire.CodeRateLimited, time.Second, "later"),
		"a timeout":       &quic.IdleTimeoutError{},
	} {
		if refuses(err) {
			t.Errorf("%s is taken for a refusal", name)
		}
	}
}
