package conn

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTrust(t *testing.T) {
	t.Parallel()
	ca, other := makeAuthority(t), makeAuthority(t)
	good := ca.issue(t, "127.0.0.1", time.Now().Add(time.Hour))
	for name, tc := range map[string]struct {
		conf  *tls.Config
		trust Trust
		want  error // Nil: the connection must come up.
	}{
		"CA":             {serverTLS(good), ca.trust(t), nil},
		"pin":            {serverTLS(good), ca.pin(t), nil},
		"wrong CA":       {serverTLS(good), other.trust(t), ErrWrongCA},
		"wrong pin":      {serverTLS(good), other.pin(t), ErrWrongPin},
		"no trust":       {serverTLS(good), Trust{}, ErrNoTrust},
		"host":           {serverTLS(ca.issue(t, "127.0.0.2", time.Now().Add(time.Hour))), ca.trust(t), ErrWrongHost},
		"host, pin":      {serverTLS(ca.issue(t, "127.0.0.2", time.Now().Add(time.Hour))), ca.pin(t), ErrWrongHost},
		"expired":        {serverTLS(ca.issue(t, "127.0.0.1", time.Now().Add(-time.Hour))), ca.trust(t), ErrWrongHost},
		"ALPN":           {&tls.Config{Certificates: []tls.Certificate{good}, NextProtos: []string{"other"}}, ca.trust(t), ErrTLS},
		"forged chain":   {serverTLS(forged(t, ca, other)), ca.pin(t), ErrWrongPin},
		"leaf is pinned": {serverTLS(good), leafPin(t, good), ErrWrongPin},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := (&fakeCell{}).start(t, tc.conf)
			c, err := Dial(t.Context(), Options{Endpoint: f.endpoint, Trust: tc.trust})
			if c != nil {
				c.Close()
			}
			if !errors.Is(err, tc.want) {
				t.Errorf("Dial: %v, want %v", err, tc.want)
			}
			if err != nil && Transient(err) {
				t.Error("a matter of trust is said to pass by itself")
			}
		})
	}
}

// forged is a leaf of other with the certificate of ca appended.
func forged(t *testing.T, ca, other *authority) tls.Certificate {
	cert := other.issue(t, "127.0.0.1", time.Now().Add(time.Hour))
	cert.Certificate[1] = ca.cert.Raw
	return cert
}

func leafPin(t *testing.T, cert tls.Certificate) Trust {
	t.Helper()
	leaf := &authority{}
	var err error
	if leaf.cert, err = parse(cert.Certificate[0]); err != nil {
		t.Fatal(err)
	}
	return leaf.pin(t)
}

func TestKeyExchangeIsHybrid(t *testing.T) {
	t.Parallel()
	c := makeCell(t, nil)
	if got := c.quic.ConnectionState().TLS.CurveID; got != tls.X25519MLKEM768 {
		t.Errorf("key exchange %v", got)
	}
}

func TestInvalidTrust(t *testing.T) {
	t.Parallel()
	if _, err := TrustCA([]byte("no PEM")); !errors.Is(err, ErrInvalidCA) {
		t.Errorf("TrustCA: %v", err)
	}
	for _, pin := range []string{"", "abcd", strings.Repeat("g", 64)} {
		if _, err := TrustPin(pin); !errors.Is(err, ErrInvalidPin) {
			t.Errorf("TrustPin(%q): %v", pin, err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ca := makeAuthority(t)
	_, err = Dial(t.Context(), Options{Endpoint: silent.LocalAddr().String(), Trust: ca.trust(t)})
	var unreachable *UnreachableError
	if !errors.As(err, &unreachable) || !Transient(err) {
		t.Errorf("Dial: %v", err)
	}
	if _, err = Dial(t.Context(), Options{Endpoint: "nohost", Trust: ca.trust(t)}); !wire.HasCode(err, wire.CodeInvalidArgument) {
		t.Errorf("Dial without a port: %v", err)
	}
}

func TestHelloRefused(t *testing.T) {
	t.Parallel()
	ca := makeAuthority(t)
	cert := ca.issue(t, "127.0.0.1", time.Now().Add(time.Hour))
	for name, hello := range map[string]wire.Body{
		"refused":       wire.Errorf(wire.CodeUnsupportedVersion, "only version 2"),
		"other version": &wire.HelloResponse{Version: schema.Version + 1, CellID: ids.New()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := (&fakeCell{hello: hello}).start(t, serverTLS(cert))
			_, err := Dial(t.Context(), Options{Endpoint: f.endpoint, Trust: ca.trust(t)})
			if !wire.HasCode(err, wire.CodeUnsupportedVersion) {
				t.Errorf("Dial: %v", err)
			}
		})
	}
}

// echo answers getAccount with its own name, and enqueue with the payload's length as sequence.
func echo(p *peer, env wire.Envelope) {
	switch r := env.Body.(type) {
	case *wire.GetAccountRequest:
		p.answer(env.CorrelationID, &wire.Account{AccountID: ids.New(), Name: r.Name, RootKey: make([]byte, 32)})
	case *wire.EnqueueRequest:
		p.answer(env.CorrelationID, &wire.EnqueueResponse{Seq: uint64(len(r.Payload)), AcceptedAt: time.Now()})
	}
}

func TestConcurrentCalls(t *testing.T) {
	t.Parallel()
	c := makeCell(t, echo)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			name := strings.Repeat("n", i+1)
			a, err := Call[*wire.Account](t.Context(), c, &wire.GetAccountRequest{Name: name})
			if err != nil || a.Name != name {
				t.Errorf("call %d: %v, %v", i, a, err)
			}
		})
	}
	wg.Wait()
}

func TestLargeRequestTravelsAlone(t *testing.T) {
	t.Parallel()
	c := makeCell(t, echo)
	for _, n := range []int{1, frame.ControlLimit, wire.MaxPayload} {
		r, err := Call[*wire.EnqueueResponse](t.Context(), c, &wire.EnqueueRequest{ChannelID: ids.New(), Generation: 1,
			DeliveryID: ids.NewDelivery(time.Now()), Payload: make([]byte, n)})
		if err != nil || r.Seq != uint64(n) {
			t.Errorf("%d bytes: %v, %v", n, r, err)
		}
	}
}

func TestLargePushesAndErrors(t *testing.T) {
	t.Parallel()
	payload := bytes.Repeat([]byte{7}, 1<<20)
	c := makeCell(t, func(p *peer, env wire.Envelope) {
		push := &wire.Delivery{ChannelID: ids.New(), Seq: 1, SenderAccountID: ids.New(), SenderDeviceID: ids.New(),
			DeliveryID: ids.New(), Payload: payload}
		p.alone(p.marshal(0, push))
		p.answer(env.CorrelationID, wire.RetryAfterf(wire.CodeBusy, time.Second, "later").With("a", "b"))
	})
	_, err := c.Call(t.Context(), &wire.SubscribeRequest{})
	var structured *wire.Error
	if !errors.As(err, &structured) || structured.RetryAfter != time.Second || !Transient(err) {
		t.Errorf("Call: %v", err)
	}
	select {
	case p := <-c.Pushes():
		if d, ok := p.(*wire.Delivery); !ok || !bytes.Equal(d.Payload, payload) {
			t.Errorf("push %T", p)
		}
	case <-t.Context().Done():
		t.Fatal("no push")
	}
}

func TestBreachesEndTheConnection(t *testing.T) {
	t.Parallel()
	huge := binary.LittleEndian.AppendUint32(make([]byte, 4), 1<<28)
	for name, tc := range map[string]struct {
		misbehave func(*peer)
		want      error
	}{
		"garbage":                 {func(p *peer) { p.write(bytes.Repeat([]byte{0xff}, 64)) }, ErrProtocol},
		"large on control":        {func(p *peer) { p.write(huge) }, ErrProtocol},
		"too large alone":         {func(p *peer) { p.alone(huge) }, ErrProtocol},
		"no envelope":             {func(p *peer) { p.write(make([]byte, 8)) }, ErrProtocol},
		"version":                 {func(p *peer) { p.write(withVersion(p.marshal(0, &wire.CaughtUp{}), 9)) }, ErrProtocol},
		"bytes behind":            {func(p *peer) { p.alone(append(p.marshal(0, &wire.CaughtUp{}), 0)) }, ErrProtocol},
		"request from the cell":   {func(p *peer) { p.answer(5, &wire.SubscribeRequest{}) }, ErrProtocol},
		"error of the connection": {func(p *peer) { p.answer(0, wire.Errorf(wire.CodeMalformed, "stop")) }, &wire.Error{Code: wire.CodeMalformed}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := makeCell(t, func(p *peer, _ wire.Envelope) { tc.misbehave(p) })
			_, err := c.Call(t.Context(), &wire.KeyPackageStatusRequest{})
			if !errors.Is(err, tc.want) || !errors.Is(c.Err(), tc.want) {
				t.Errorf("Call: %v; Err: %v", err, c.Err())
			}
			if Transient(err) {
				t.Error("a breach of the protocol is said to pass by itself")
			}
			if _, err := c.Call(t.Context(), &wire.KeyPackageStatusRequest{}); !errors.Is(err, tc.want) {
				t.Errorf("the next call: %v", err)
			}
		})
	}
}

// withVersion patches the version, the first field of the root struct behind the segment table and root pointer.
func withVersion(b []byte, v uint16) []byte {
	binary.LittleEndian.PutUint16(b[16:], v)
	return b
}

func TestBadAnswerFailsOnlyItsCall(t *testing.T) {
	t.Parallel()
	c := makeCell(t, func(p *peer, env wire.Envelope) {
		if _, ok := env.Body.(*wire.KeyPackageStatusRequest); ok {
			p.write(withVersion(p.marshal(env.CorrelationID, &wire.Done{}), 9))
			return
		}
		echo(p, env)
	})
	if _, err := c.Call(t.Context(), &wire.KeyPackageStatusRequest{}); !errors.Is(err, ErrProtocol) {
		t.Errorf("bad answer: %v", err)
	}
	if _, err := c.Call(t.Context(), &wire.GetAccountRequest{Name: "x"}); err != nil {
		t.Errorf("the next call: %v", err)
	}
	if _, err := Call[*wire.Done](t.Context(), c, &wire.GetAccountRequest{Name: "x"}); !errors.Is(err, ErrProtocol) {
		t.Errorf("an answer of another type: %v", err)
	}
}

func TestCancelledCall(t *testing.T) {
	t.Parallel()
	c := makeCell(t, func(p *peer, env wire.Envelope) {
		if r, ok := env.Body.(*wire.GetAccountRequest); ok && r.Name != "silent" {
			echo(p, env)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Call(ctx, &wire.GetAccountRequest{Name: "silent"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Call: %v", err)
	}
	if _, err := c.Call(t.Context(), &wire.GetAccountRequest{Name: "loud"}); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

func TestLostConnection(t *testing.T) {
	t.Parallel()
	c := makeCell(t, func(p *peer, _ wire.Envelope) { p.quic.CloseWithError(3, "gone") })
	_, err := c.Call(t.Context(), &wire.KeyPackageStatusRequest{})
	var lost *LostError
	if !errors.As(err, &lost) || !Transient(err) {
		t.Errorf("Call: %v", err)
	}
	<-c.Done()
}

func TestClose(t *testing.T) {
	t.Parallel()
	c := makeCell(t, func(*peer, wire.Envelope) {})
	failed := make(chan error)
	go func() {
		_, err := c.Call(t.Context(), &wire.KeyPackageStatusRequest{})
		failed <- err
	}()
	c.Close()
	c.Close()
	if err := <-failed; !errors.Is(err, ErrClosed) {
		t.Errorf("an open call: %v", err)
	}
	if _, err := c.Call(t.Context(), &wire.KeyPackageStatusRequest{}); !errors.Is(err, ErrClosed) {
		t.Errorf("a later call: %v", err)
	}
}

// TestPushFlood: a cell that pushes without end is cut off, and memory stays bounded.
func TestPushFlood(t *testing.T) {
	t.Parallel()
	c := makeCell(t, func(p *peer, _ wire.Envelope) {
		b := p.marshal(0, &wire.CaughtUp{})
		for range pushQueue + 1 {
			p.write(b)
		}
	})
	if _, err := c.Call(t.Context(), &wire.KeyPackageStatusRequest{}); !errors.Is(err, ErrProtocol) {
		t.Errorf("Call: %v", err)
	}
}

func TestProofBindsToTheConnection(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	exporter := make(chan []byte, 1)
	c := makeCell(t, func(p *peer, env wire.Envelope) {
		state := p.quic.ConnectionState().TLS
		b, err := state.ExportKeyingMaterial(devicecert.ExporterLabel, nil, devicecert.ExporterSize)
		if err != nil {
			t.Error(err)
		}
		exporter <- b
		p.answer(env.CorrelationID, &wire.Done{})
	})
	proof, err := c.Prove(private)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Call(t.Context(), &wire.KeyPackageStatusRequest{}); err != nil {
		t.Fatal(err)
	}
	if !devicecert.VerifyProof(public, <-exporter, proof) {
		t.Error("the cell cannot verify the proof")
	}
}
