package session

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/quic-go/quic-go"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/internal/pki"
	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

const patience = 20 * time.Second // Before a test has failed.

// served is a listener whose connections are sessions in front of stubs.
type served struct {
	*stubs
	services *Services
	policy   *atomic.Pointer[policy.Policy] // Nil unless limited.
	listener *quic.Listener
	roots    *x509.CertPool

	mu       sync.Mutex
	sessions []*Session
}

func serve(t *testing.T, change func(*served)) *served {
	t.Helper()
	v := &served{stubs: &stubs{}, roots: x509.NewCertPool()}
	s, closeLane := services(v.stubs)
	v.services = s
	if change != nil {
		change(v)
	}
	ca, err := pki.NewCA("test", time.Now(), time.Hour)
	must(t, err)
	v.roots.AddCert(ca.Certificate())
	certPEM, keyPEM, err := ca.IssueServer([]string{"127.0.0.1"}, time.Now(), time.Hour)
	must(t, err)
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	must(t, err)
	settings := &quic.Config{}
	Configure(settings)
	v.listener, err = quic.ListenAddr("127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"test"}, MinVersion: tls.VersionTLS13}, settings)
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { v.accept(ctx, &all) })
	t.Cleanup(func() {
		stop()
		all.Wait()
		must(t, v.listener.Close())
		closeLane()
	})
	return v
}

func (v *served) accept(ctx context.Context, all *sync.WaitGroup) {
	for {
		conn, err := v.listener.Accept(ctx)
		if err != nil {
			return
		}
		s := New(v.services, conn)
		v.mu.Lock()
		v.sessions = append(v.sessions, s)
		v.mu.Unlock()
		all.Go(func() { s.Serve(ctx) })
	}
}

// session returns the only session, once it is there.
func (v *served) session(t *testing.T) *Session {
	t.Helper()
	var s *Session
	eventually(t, "a session", func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		if len(v.sessions) > 0 {
			s = v.sessions[0]
		}
		return s != nil
	})
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition that nothing announces.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

// peer is a client that speaks frame by frame, and may behave badly.
type peer struct {
	t       *testing.T
	conn    *quic.Conn
	control *quic.Stream
	last    uint64
}

// windows are what the server may send unread, in bytes, on a stream and on all together; 0 is QUIC's own affair.
type windows struct{ stream, all uint64 }

// dial connects.
func (v *served) dial(t *testing.T, w windows) *peer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	config := &quic.Config{InitialStreamReceiveWindow: w.stream, MaxStreamReceiveWindow: w.stream, InitialConnectionReceiveWindow: w.all,
		MaxConnectionReceiveWindow: w.all, KeepAlivePeriod: time.Second}
	conn, err := quic.DialAddr(ctx, v.listener.Addr().(*net.UDPAddr).String(), &tls.Config{RootCAs: v.roots, NextProtos: []string{"test"}, MinVersion: tls.VersionTLS13}, config)
	must(t, err)
	t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
	return &peer{t: t, conn: conn}
}

// open opens the control stream and authenticates.
func (v *served) open(t *testing.T, w windows) *peer {
	t.Helper()
	p := v.dial(t, w)
	p.send(&wire.AuthenticateRequest{AccessToken: []byte("t"), Proof: make([]byte, 64)})
	if _, ok := p.receive().Body.(*wire.AuthenticateResponse); !ok {
		t.Fatal("not authenticated")
	}
	return p
}

func (p *peer) frame(r wire.Request) []byte {
	p.t.Helper()
	p.last++
	b, err := wire.Marshal(wire.Envelope{CorrelationID: p.last, Body: r})
	must(p.t, err)
	return b
}

func (p *peer) send(r wire.Request) {
	p.t.Helper()
	if p.control == nil {
		stream, err := p.conn.OpenStream()
		must(p.t, err)
		p.control = stream
	}
	_, err := p.control.Write(p.frame(r))
	must(p.t, err)
}

// receive reads the next frame of the control stream.
func (p *peer) receive() wire.Envelope {
	p.t.Helper()
	_ = p.control.SetReadDeadline(time.Now().Add(patience))
	b, err := frame.Read(p.control, wire.MaxFrame)
	must(p.t, err)
	e, err := wire.Unmarshal(b)
	must(p.t, err)
	return e
}

// ended waits for the server to close the connection, and wants its code.
func (p *peer) ended(code quic.ApplicationErrorCode) {
	p.t.Helper()
	select {
	case <-p.conn.Context().Done():
	case <-time.After(patience):
		p.t.Fatal("the connection did not end")
	}
	var e *quic.ApplicationError
	if err := context.Cause(p.conn.Context()); !errors.As(err, &e) || e.ErrorCode != code || !e.Remote {
		p.t.Fatalf("it ended with %v, want code %d", err, code)
	}
}

func (p *peer) alive() {
	p.t.Helper()
	p.send(&wire.HelloRequest{MinVersion: 1, MaxVersion: 1})
	for {
		e := p.receive()
		if e.CorrelationID == p.last {
			return
		}
	}
}

func hurried(v *served) { v.services.AuthPatience = 300 * time.Millisecond }

func TestAConnectionWithoutAControlStreamIsClosedInTime(t *testing.T) {
	t.Parallel()
	serve(t, hurried).dial(t, windows{}).ended(CloseAuth)
}

func TestASilentStrangerIsClosedInTime(t *testing.T) {
	t.Parallel()
	p := serve(t, hurried).dial(t, windows{})
	p.send(&wire.HelloRequest{MinVersion: 1, MaxVersion: 1})
	p.ended(CloseAuth)
}

func TestAStrangerWhoNeverReadsIsClosedInTime(t *testing.T) {
	t.Parallel()
	v := serve(t, hurried)
	p := v.dial(t, windows{1200, 1200})
	go func() {
		hello, err := wire.Marshal(wire.Envelope{CorrelationID: 1, Body: &wire.HelloRequest{MinVersion: 1, MaxVersion: 1}})
		stream, openErr := p.conn.OpenStream()
		for err == nil && openErr == nil {
			_, err = stream.Write(hello)
		}
	}()
	p.ended(CloseAuth)
}

func TestADeviceIsNotHurried(t *testing.T) {
	t.Parallel()
	v := serve(t, hurried)
	p := v.open(t, windows{})
	stranger := v.dial(t, windows{})
	stranger.ended(CloseAuth) // Later than the device would have been.
	p.alive()
}

func TestAClientThatStopsReadingTheControlStreamIsLeft(t *testing.T) {
	t.Parallel()
	p := serve(t, nil).open(t, windows{})
	p.control.CancelRead(7)
	p.send(&wire.HelloRequest{MinVersion: 1, MaxVersion: 1})
	p.ended(CloseDone)
}

func TestUnreadAnswersStopTheReader(t *testing.T) {
	t.Parallel()
	v := serve(t, func(v *served) {
		v.claim = func() *wire.ClaimKeyPackagesResponse { // Just below a control frame.
			out := &wire.ClaimKeyPackagesResponse{}
			for range 7 {
				out.Packages = append(out.Packages, wire.ClaimedKeyPackage{DeviceID: phone, KeyPackage: make([]byte, 8000)})
			}
			return out
		}
	})
	const window = 32 << 10
	p := v.open(t, windows{window, window})
	v.calls.Store(0)
	_ = p.control.SetWriteDeadline(time.Now().Add(2 * time.Second))
	for range inFlight {
		if _, err := p.control.Write(p.frame(&wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: account})); err != nil {
			break
		}
	}
	size := 7 * 8000
	// What is being written and what is queued behind it may each reach the high water, and be passed by the calls that
	// were under way then; the rest is in the connection's windows.
	most := int64(2*(highWater/size+1+concurrentCalls) + 2*window/size + 2)
	eventually(t, "answers up to the high water", func() bool { return v.calls.Load() > int64(highWater/size) })
	time.Sleep(50 * time.Millisecond) // Time for too many.
	if n := v.calls.Load(); n > most {
		t.Errorf("%d answers of %d bytes were made for a client that reads none, at most %d may be", n, size, most)
	}
}

func TestCallsThatWaitAreBounded(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	v := serve(t, func(v *served) {
		v.status = func(ctx context.Context) error {
			select {
			case <-gate:
			case <-ctx.Done():
			}
			return nil
		}
	})
	p := v.open(t, windows{})
	v.calls.Store(0)
	const n = 3 * concurrentCalls
	for range n {
		p.send(&wire.KeyPackageStatusRequest{})
	}
	eventually(t, "all places taken", func() bool { return v.calls.Load() == concurrentCalls })
	close(gate)
	for range n {
		if e := p.receive(); e.CorrelationID == 0 {
			t.Fatalf("%+v", e.Body)
		}
	}
}

// alone sends a frame on a stream of its own; the stream ends later than the frame.
func (p *peer) alone(b []byte, more ...byte) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	s, err := p.conn.OpenUniStreamSync(ctx)
	must(p.t, err)
	_, err = s.Write(b)
	must(p.t, err)
	time.Sleep(5 * time.Millisecond) // So that the end travels by itself.
	_, _ = s.Write(more)             // The server may refuse that, and the end.
	_ = s.Close()
}

func largeGroup() *wire.CreateGroupRequest {
	return &wire.CreateGroupRequest{ChannelID: channel, Generation: 1, GroupInfo: make([]byte, 100<<10)}
}

func TestStreamsOfLargeFramesAreGivenBack(t *testing.T) {
	t.Parallel()
	p := serve(t, nil).open(t, windows{})
	for range 3 * largeIn {
		p.alone(p.frame(largeGroup()))
		if e := p.receive(); e.CorrelationID != p.last {
			t.Fatalf("%+v", e.Body)
		}
	}
}

func TestMoreThanAFrameOnItsStreamIsMalformed(t *testing.T) {
	t.Parallel()
	v := serve(t, nil)
	p := v.open(t, windows{})
	v.calls.Store(0)
	for range 2 * largeIn {
		p.alone(p.frame(largeGroup()), 0)
		e := p.receive()
		if err, ok := e.Body.(*wire.Error); !ok || err.Code != wire.CodeMalformed || e.CorrelationID != 0 {
			t.Fatalf("%+v", e.Body)
		}
	}
	if n := v.calls.Load(); n != 0 {
		t.Errorf("%d malformed frames were carried out", n)
	}
	p.alive()
}

func TestLargeRequestsCannotBePiledUp(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	v := serve(t, func(v *served) {
		v.create = func(context.Context) error { <-gate; return nil }
	})
	p := v.open(t, windows{})
	v.calls.Store(0)
	const n = 3 * largeIn
	frames := make([][]byte, n)
	for i := range frames {
		frames[i] = p.frame(largeGroup())
	}
	var sent sync.WaitGroup
	for _, b := range frames {
		sent.Go(func() { p.alone(b) })
	}
	eventually(t, "all places taken", func() bool { return v.calls.Load() == largeIn })
	for range 100 { // Time enough for more; and the control stream goes on.
		p.alive()
	}
	if n := v.calls.Load(); n != largeIn {
		t.Errorf("%d large requests have begun", n)
	}
	close(gate)
	sent.Wait()
	for range n {
		if e := p.receive(); e.CorrelationID == 0 {
			t.Fatalf("%+v", e.Body)
		}
	}
}

func TestAPanicEndsItsConnectionAlone(t *testing.T) {
	t.Parallel()
	v := serve(t, func(v *served) {
		v.status = func(context.Context) error { panic("beside the reader") }
	})
	p, other := v.open(t, windows{}), v.open(t, windows{})
	p.send(&wire.KeyPackageStatusRequest{})
	p.ended(CloseDone)
	v.panics.Store(true)
	p = v.dial(t, windows{})
	p.send(&wire.AuthenticateRequest{AccessToken: []byte("t"), Proof: make([]byte, 64)})
	p.ended(CloseDone)
	other.alive()
	if n := testutil.ToFloat64(v.services.Metrics.Panics); n != 2 {
		t.Errorf("%v panics counted, want 2", n)
	}
}

func TestGoAwayDoesNotWaitForAClientThatNeverReads(t *testing.T) {
	t.Parallel()
	v := serve(t, nil)
	p := v.open(t, windows{1200, 1200})
	s := v.session(t)
	go func() {
		hello := p.frame(&wire.HelloRequest{MinVersion: 1, MaxVersion: 1})
		for range 20 * inFlight {
			if _, err := p.control.Write(hello); err != nil {
				return
			}
		}
	}()
	<-s.ready
	eventually(t, "answers that wait", func() bool { return len(s.tokens) > inFlight/2 })
	s.GoAway(wire.GoAwayDraining, 50*time.Millisecond)
	p.ended(CloseGoAway)
}

func TestGoAwayTellsAndThenCloses(t *testing.T) {
	t.Parallel()
	v := serve(t, nil)
	p := v.open(t, windows{})
	v.session(t).GoAway(wire.GoAwayDraining, 100*time.Millisecond)
	if g, ok := p.receive().Body.(*wire.GoAway); !ok || g.Reason != wire.GoAwayDraining || g.Grace != 100*time.Millisecond {
		t.Fatalf("%+v", g)
	}
	p.ended(CloseGoAway)
}

func TestAnEndingTokenSendsTheClientAway(t *testing.T) {
	t.Parallel()
	v := serve(t, func(v *served) { v.ttl.Store(int64(200 * time.Millisecond)) })
	p := v.open(t, windows{})
	if g, ok := p.receive().Body.(*wire.GoAway); !ok || g.Reason != wire.GoAwayTokenExpired || g.Grace != tokenGrace {
		t.Fatalf("%+v", g)
	}
}

func TestARefreshedTokenKeepsTheConnection(t *testing.T) {
	t.Parallel()
	v := serve(t, func(v *served) { v.ttl.Store(int64(500 * time.Millisecond)) })
	p := v.open(t, windows{})
	v.ttl.Store(int64(time.Hour))
	p.send(&wire.RefreshSessionRequest{RefreshToken: []byte("t"), DeviceID: phone, Proof: make([]byte, 64)})
	if _, ok := p.receive().Body.(*wire.Session); !ok {
		t.Fatal("not refreshed")
	}
	_ = p.control.SetReadDeadline(time.Now().Add(700 * time.Millisecond))
	if b, err := frame.Read(p.control, frame.ControlLimit); err == nil {
		e, _ := wire.Unmarshal(b)
		t.Fatalf("after the first token's end came %+v", e.Body)
	}
}

func stored(sizes ...int) []*store.Message {
	var list []*store.Message
	for i, size := range sizes {
		list = append(list, &store.Message{ChannelID: channel, Seq: uint64(i + 1), Kind: store.MessageApplication, Generation: 1,
			SenderAccount: account, SenderID: ids.New(), DeliveryID: ids.New(), AcceptedAt: time.Now(), Payload: make([]byte, size)})
	}
	return list
}

func TestALargeDeliveryDoesNotHoldUpSmallOnes(t *testing.T) {
	t.Parallel()
	v := serve(t, func(v *served) { v.stored = stored(1<<20, 100) })
	p := v.open(t, windows{64 << 10, 1 << 20}) // Reads the control stream alone: the large one gets stuck.
	p.send(&wire.SubscribeRequest{})
	for {
		if d, ok := p.receive().Body.(*wire.Delivery); ok {
			if d.Seq != 2 || d.PrevSeq != 1 {
				t.Fatalf("%+v", d)
			}
			return
		}
	}
}

func TestADeliveryThatTheClientRefusesEndsTheConnection(t *testing.T) {
	t.Parallel()
	v := serve(t, func(v *served) { v.stored = stored(1 << 20) })
	p := v.open(t, windows{64 << 10, 1 << 20})
	p.send(&wire.SubscribeRequest{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := p.conn.AcceptUniStream(ctx)
	must(t, err)
	s.CancelRead(9)
	p.ended(CloseDone)
}

func TestASecondSubscriptionOnAConnectionIsRefused(t *testing.T) {
	t.Parallel()
	p := serve(t, nil).open(t, windows{})
	p.send(&wire.SubscribeRequest{})
	p.send(&wire.SubscribeRequest{})
	for {
		e := p.receive()
		if e.CorrelationID != p.last {
			continue
		}
		if err, ok := e.Body.(*wire.Error); !ok || err.Code != wire.CodeAlreadyExists {
			t.Fatalf("%+v", e.Body)
		}
		return
	}
}
