package session

import (
	"bytes"
	"context"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// goldenRequests are captures of every request, one frame each.
func goldenRequests(t testing.TB) [][]byte {
	t.Helper()
	files, err := filepath.Glob("../../schema/testdata/golden/*.hex")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	var frames [][]byte
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var digits strings.Builder
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "#") {
				digits.WriteString(strings.Join(strings.Fields(line), ""))
			}
		}
		b, err := hex.DecodeString(digits.String())
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		frames = append(frames, b)
	}
	return frames
}

// offline is a session without a connection: frames go in by take, and what it writes is kept.
type offline struct {
	*Session
	out bytes.Buffer
	end func() []wire.Envelope
}

func newOffline(t testing.TB, authenticated bool) *offline {
	t.Helper()
	s, closeLane := services(&stubs{})
	o := &offline{Session: newSession(context.Background(), s, netip.Addr{})}
	o.writer = newWriter(&o.out, o.answered)
	writing, stopWriting := context.WithCancel(context.Background())
	var written sync.WaitGroup
	written.Go(func() { o.write(writing) })
	close(o.ready)
	if authenticated {
		if err := o.become(s.Identity.(*stubs).principal()); err != nil {
			t.Fatal(err)
		}
	}
	o.end = func() []wire.Envelope {
		o.awaitAnswers(t)
		closeLane()
		o.cancel(nil)
		o.group.Wait()
		stopWriting()
		written.Wait()
		o.stopTimers()
		return o.envelopes(t)
	}
	return o
}

// awaitAnswers waits until no request is in flight.
func (o *offline) awaitAnswers(t testing.TB) {
	t.Helper()
	for range inFlight {
		select {
		case o.tokens <- struct{}{}:
		case <-time.After(10 * time.Second):
			t.Fatal("a request was never answered")
		}
	}
}

func (o *offline) envelopes(t testing.TB) []wire.Envelope {
	t.Helper()
	var all []wire.Envelope
	for o.out.Len() > 0 {
		b, err := frame.Read(&o.out, wire.MaxFrame)
		if err != nil {
			t.Fatalf("what was written is no frame: %v", err)
		}
		e, err := wire.Unmarshal(b)
		if err != nil {
			t.Fatalf("what was written does not parse: %v", err)
		}
		all = append(all, e)
	}
	return all
}

// FuzzDispatch gives a session any frames, as a stranger's or a device's: nothing panics, and each is answered once.
func FuzzDispatch(f *testing.F) {
	all := goldenRequests(f)
	for _, b := range all {
		f.Add(b, true)
		f.Add(b, false)
	}
	f.Add(slices.Concat(all...), true)
	f.Add(slices.Concat(all...), false)
	f.Fuzz(func(t *testing.T, stream []byte, authenticated bool) {
		o := newOffline(t, authenticated)
		r := bytes.NewReader(stream)
		want := map[uint64]int{}
		for {
			b, err := frame.Read(r, frame.ControlLimit)
			if err != nil {
				break
			}
			e, _ := wire.Unmarshal(b)
			want[e.CorrelationID]++
			if !o.take(b, nothing) {
				t.Fatal("the session ended")
			}
		}
		for _, e := range o.end() {
			switch e.Body.(type) {
			case wire.Response, *wire.Error:
				want[e.CorrelationID]--
			}
		}
		for id, n := range want {
			if n != 0 {
				t.Errorf("correlation id %d: %d answers are missing", id, n)
			}
		}
		if n := testutil.ToFloat64(o.Metrics.Panics); n != 0 {
			t.Errorf("%v panics", n)
		}
	})
}

func TestEveryRequestIsAnsweredOnce(t *testing.T) {
	t.Parallel()
	for _, authenticated := range []bool{false, true} {
		o := newOffline(t, authenticated)
		const rounds = 20
		n := 0
		for range rounds {
			for _, b := range goldenRequests(t) {
				if e, err := wire.Unmarshal(b); err == nil {
					if _, ok := e.Body.(wire.Request); ok {
						n++
						o.take(b, nothing)
					}
				}
			}
		}
		answers := 0
		for _, e := range o.end() {
			if _, push := e.Body.(wire.Push); !push {
				answers++
			}
		}
		if n == 0 || answers != n {
			t.Errorf("%d requests, %d answers", n, answers)
		}
	}
}

func TestErrorsBecomeTheTaxonomys(t *testing.T) {
	t.Parallel()
	o := newOffline(t, true)
	ask := map[uint64]struct {
		request wire.Request
		code    wire.Code
	}{
		1: {&wire.GetAccountRequest{Name: "x"}, wire.CodeNotFound},
		2: {&wire.OpenDMRequest{AccountID: ids.New()}, wire.CodeInternal},
		3: {&wire.LoginFinishRequest{KE3: []byte{1}}, wire.CodeUnauthenticated},
		4: {&wire.AckRequest{}, wire.CodeInvalidCursor},
		5: {&wire.HelloRequest{MinVersion: 2, MaxVersion: 9}, wire.CodeUnsupportedVersion},
	}
	for id, a := range ask {
		b, err := wire.Marshal(wire.Envelope{CorrelationID: id, Body: a.request})
		if err != nil {
			t.Fatal(err)
		}
		o.take(b, nothing)
	}
	for _, e := range o.end() {
		err, ok := e.Body.(*wire.Error)
		if !ok || err.Code != ask[e.CorrelationID].code {
			t.Errorf("%d: %+v, want %s", e.CorrelationID, e.Body, ask[e.CorrelationID].code)
		}
		if strings.Contains(err.Message, "without a code") {
			t.Errorf("an inner error went out: %s", err.Message)
		}
	}
}

func TestAConnectionStaysWithItsDevice(t *testing.T) {
	t.Parallel()
	o := newOffline(t, true)
	stub := o.Identity.(*stubs)
	for _, r := range []wire.Request{
		&wire.SignupFinishRequest{},
		&wire.RefreshSessionRequest{DeviceID: ids.New()},
	} {
		if _, err := o.authenticate(r); !wire.HasCode(err, wire.CodePermissionDenied) {
			t.Errorf("%s: %v", r.Method(), err)
		}
	}
	if n := stub.calls.Load(); n != 0 {
		t.Errorf("%d calls were made, and may have changed something, before they were refused", n)
	}
	if _, err := o.authenticate(&wire.RefreshSessionRequest{DeviceID: phone}); err != nil {
		t.Errorf("its own device: %v", err)
	}
	o.end()
}

func TestAnExpiredTokenOpensNothing(t *testing.T) {
	t.Parallel()
	o := newOffline(t, false)
	p := o.Identity.(*stubs).principal()
	p.ExpiresAt = time.Now().Add(-time.Second)
	if err := o.become(p); err != nil {
		t.Fatal(err)
	}
	if _, err := o.whoami(); !wire.HasCode(err, wire.CodeExpiredToken) {
		t.Errorf("%v", err)
	}
	o.end()
}
