//go:build unix

package embeddedpg

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseMajor(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n": 15,
		"postgres (PostgreSQL) 18.4\n":                           18,
		"postgres (PostgreSQL) 19beta1\n":                        19,
		"postgres (PostgreSQL) 9.6.24\n":                         9,
		"mysqld  Ver 8.0\n":                                      0,
		"postgres (PostgreSQL) devel\n":                          0,
		"":                                                       0,
	} {
		got, err := parseMajor(text)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("parseMajor(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
}

// fakeBinaries makes an installation whose postgres only prints its version.
func fakeBinaries(t *testing.T, script string) string {
	t.Helper()
	// Not t.TempDir: the unprivileged user must be able to get there.
	dir, err := os.MkdirTemp("", "embeddedpg-fake-*") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"postgres": script, "initdb": "#!/bin/sh\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestProbe(t *testing.T) {
	t.Parallel()
	a, err := chooseAccount(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, script, want string
	}{
		{"good", "#!/bin/sh\necho 'postgres (PostgreSQL) 17.2'\n", ""},
		{"too old", "#!/bin/sh\necho 'postgres (PostgreSQL) 13.1'\n", "too old"},
		{"broken", "#!/bin/sh\necho 'libssl.so.1.1: no such file' >&2\nexit 127\n", "libssl.so.1.1"},
		{"something else", "#!/bin/sh\necho hello\n", "not a PostgreSQL version"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b, err := probe(t.Context(), fakeBinaries(t, tc.script), a)
			if tc.want == "" {
				if err != nil || b.major != 17 {
					t.Errorf("probe: %d, %v", b.major, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("probe: %v, want an error with %q", err, tc.want)
			}
		})
	}
}

// The caller may run the programs, but the user that must cannot get at them.
func TestProbeUnreachable(t *testing.T) {
	t.Parallel()
	a, err := chooseAccount(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	if !a.drop {
		t.Skip("only a root caller has servers of another user")
	}
	dir := fakeBinaries(t, "#!/bin/sh\necho 'postgres (PostgreSQL) 17.2'\n")
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := probe(t.Context(), dir, a); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("probe: %v", err)
	}
}
