package bare

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/internal/pki"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/test/load/peer"
)

// running is a relay in this process.
func running(t *testing.T) *System {
	t.Helper()
	ca, err := pki.NewCA("test", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.IssueServer([]string{"127.0.0.1"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	if err := errors.Join(os.WriteFile(certFile, cert, 0o600), os.WriteFile(keyFile, key, 0o600)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	address, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- Relay(ctx, certFile, keyFile, func(a string) { address <- a }) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate())
	s := &System{name: "bare", size: 1400, tls: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, ServerName: "127.0.0.1", NextProtos: []string{alpn}}}
	select {
	case s.addr = <-address:
	case err := <-ended:
		t.Fatal(err)
	}
	return s
}

func TestTheRelayGivesEachOfAPairsDevicesWhatItsSenderSent(t *testing.T) {
	t.Parallel()
	s := running(t)
	var mu sync.Mutex
	got := map[string][]byte{}
	var all sync.WaitGroup
	topology := peer.Topology{Pairs: 2, Devices: 3}
	n, err := s.Open(t.Context(), topology, func(pair, device int, content []byte) {
		mu.Lock()
		defer mu.Unlock()
		who := fmt.Sprint(pair, device)
		if _, again := got[who]; again {
			t.Errorf("%s got it twice", who)
		}
		got[who] = slices.Clone(content)
		all.Done()
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	all.Add(topology.Pairs * (topology.Devices + 1))
	for pair := range topology.Pairs {
		if err := n.Publish(pair, ids.New(), text(pair), func(error) { all.Done() }); err != nil {
			t.Fatal(err)
		}
	}
	all.Wait()
	mu.Lock()
	defer mu.Unlock()
	for who, b := range got {
		if !bytes.Equal(b, text(int(who[0]-'0'))) {
			t.Errorf("%s got another's", who)
		}
	}
}

func text(pair int) []byte { return bytes.Repeat([]byte{byte('a' + pair)}, peer.ContentSize) }

func TestFramesAreBounded(t *testing.T) {
	t.Parallel()
	if b, err := readFrame(bytes.NewReader(frame([]byte("text"))), nil); err != nil || string(b) != "text" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := readFrame(bytes.NewReader([]byte{0xff, 0, 0, 0}), nil); err == nil {
		t.Error("4 GiB were taken")
	}
}
