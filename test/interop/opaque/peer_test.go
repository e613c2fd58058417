package opaque

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"quicproquo.dev/test/interop/node"
)

// peer is a running peer.mjs. One test uses it.
type peer struct {
	t       *testing.T
	mu      sync.Mutex
	process *node.Process
}

func makePeer(t *testing.T) *peer {
	t.Helper()
	home, err := node.Install(t.Context(), node.Folder("peer"), os.Stderr)
	if errors.Is(err, node.ErrMissing) {
		t.Skipf("NOT RUN: that an independent implementation of OPAQUE registers and logs in, both ways: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t}
	if p.process, err = node.Start(filepath.Join(node.Folder("peer"), "peer.mjs"), home); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.process.Close(); err != nil {
			t.Error("node:", err)
		}
	})
	return p
}

type (
	args   map[string]any
	result map[string]string
)

// step runs one step of the other implementation. A nil result is a login that failed.
func (p *peer) step(name string, a args) (result, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a == nil {
		a = args{}
	}
	var r result
	if err := p.process.Call(map[string]any{"step": name, "args": a}, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

// must is step for what cannot fail.
func (p *peer) must(name string, a args) result {
	p.t.Helper()
	r, err := p.step(name, a)
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

// text is how the other implementation writes messages.
func text(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func bytesOf(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) == 0 {
		t.Fatalf("%q: %v", s, err)
	}
	return b
}

func writeFile(dir, name string, b []byte) error {
	return os.WriteFile(filepath.Join(dir, name), b, 0o600)
}
