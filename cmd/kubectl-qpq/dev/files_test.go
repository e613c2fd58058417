package dev

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/internal/cellkeys"
)

func TestReachable(t *testing.T) {
	t.Parallel()
	for listening, want := range map[string]string{
		"127.0.0.1:4201": "127.0.0.1:4201",
		"0.0.0.0:4201":   "127.0.0.1:4201",
		"[::]:4201":      "127.0.0.1:4201",
		"[::1]:4201":     "[::1]:4201",
		"192.0.2.7:4201": "192.0.2.7:4201",
	} {
		addr, err := net.ResolveUDPAddr("udp", listening)
		if err != nil {
			t.Fatal(err)
		}
		if got := reachable(addr); got != want {
			t.Errorf("%s: %s, want %s", listening, got, want)
		}
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	cell := &v1alpha1.MessagingCell{}
	cell.Spec.Endpoint.Host = "chat.example.org"
	always := []string{"localhost", "127.0.0.1", "::1", "chat.example.org"}
	for listen, more := range map[string][]string{
		"": nil, ":4201": nil, "0.0.0.0:4201": nil, "[::]:1": nil, "192.0.2.7:1": {"192.0.2.7"}, "box.example.org:1": {"box.example.org"}, "nonsense": nil,
	} {
		if got, want := hosts(Options{Listen: listen}, cell), append(slices.Clone(always), more...); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", listen, got, want)
		}
	}
}

func TestSecretsAreMadeOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := prepareSecrets(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := os.ReadFile(filepath.Join(dir, keysFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cellkeys.Parse(keys); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, keysFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	second, err := prepareSecrets(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	again, err := os.ReadFile(filepath.Join(dir, keysFile))
	if err != nil || string(again) != string(keys) || second.Pin() != first.Pin() {
		t.Errorf("keys or CA changed: %v", err)
	}
}

func TestAFolderServesOneCell(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	unlock, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(dir); err == nil || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("a second lock: %v", err)
	}
	unlock()
	unlock, err = lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestTheDefaultFolder(t *testing.T) {
	base := t.TempDir()
	t.Setenv("XDG_DATA_HOME", base)
	got, err := directory("", "chat")
	if err != nil || got != filepath.Join(base, "quicproquo", "dev", "chat") {
		t.Errorf("%s, %v", got, err)
	}
	if info, err := os.Stat(got); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
}
