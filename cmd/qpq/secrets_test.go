package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quicproquo.dev/client/keystore"
	"quicproquo.dev/internal/secretflag"
)

func TestNoFlagTakesASecret(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	for _, x := range []struct {
		args []string
		want string
	}{
		{[]string{"read", "--passphrase", secret}, "QPQ_PASSPHRASE"}, {[]string{"--password=" + secret, "whoami"}, "QPQ_PASSPHRASE"},
		{[]string{"passwd", "--new-passphrase=" + secret}, "QPQ_NEW_PASSPHRASE"}, {[]string{"signup", "alice", "--token", secret}, "QPQ_CODE"},
		{[]string{"recover", "alice", "--code=" + secret}, "QPQ_CODE"}, {[]string{"reset", "alice", "--code", secret}, "QPQ_CODE"},
		{[]string{"account", "delete", "--password=" + secret}, "QPQ_PASSPHRASE"}, {[]string{"whoami", "-p" + secret}, "unknown flag: -p"},
		{[]string{"devices", "revoke", "x", "--token=" + secret}, "QPQ_CODE"},
	} {
		for _, args := range [][]string{x.args, append([]string{"--json"}, x.args...)} {
			h := makeProgram(nil)
			code := h.run(t.Context(), args)
			if got := h.err.String(); code != exitUsage || !strings.Contains(got, x.want) || strings.Contains(got, secret) || h.out.Len() > 0 {
				t.Errorf("%v: exit %d, %q", args, code, got)
			}
		}
	}
	// Those that look like one: a file's name, and what serves once.
	if got, want := secretflag.Suspects((&program{}).command()), []string{"qpq --client-key", "qpq signup --invite"}; !slices.Equal(got, want) {
		t.Errorf("%q look as if they held a secret", got)
	}
}

func TestSecretsAreTakenOutOfTheEnvironment(t *testing.T) { //nolint:paralleltest // The environment is the process's.
	for _, name := range []string{passphraseEnv, newPassphraseEnv, codeEnv} {
		t.Setenv(name, "secret")
		if got, ok := takeEnv(name); got != "secret" || !ok {
			t.Errorf("%s: %q, %v", name, got, ok)
		}
		if got, ok := os.LookupEnv(name); ok {
			t.Errorf("%s is there still: %q", name, got)
		}
	}
	t.Setenv("QPQ_CELL", "x:1")
	for range 2 {
		if got, _ := takeEnv("QPQ_CELL"); got != "x:1" {
			t.Errorf("what is no secret is gone")
		}
	}
}

// What was typed is zeroed when the verb is done, however it ends.
func TestTypedSecretsAreZeroed(t *testing.T) {
	t.Parallel()
	profile := filepath.Join(t.TempDir(), "profile")
	if _, err := keystore.Create(profile, []byte("right"), keystore.KDF{Time: 1, MemoryKiB: 64, Threads: 1}); err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		args    []string
		answers []string
	}{
		"a wrong passphrase":      {[]string{"whoami"}, []string{"wrong"}},
		"no account":              {[]string{"whoami"}, []string{"right"}},
		"no cell":                 {[]string{"signup", "alice"}, []string{"right"}},
		"an account to delete":    {[]string{"account", "delete", "--yes", "alice"}, []string{"wrong"}},
		"two that differ":         {[]string{"--profile", profile + "2", "signup", "alice"}, []string{"one", "two"}},
		"a login without a cell":  {[]string{"login", "alice"}, []string{"right"}},
		"a device without a cell": {[]string{"devices", "add"}, []string{"right"}},
	} {
		h := makeProgram(map[string]string{"QPQ_PROFILE": profile})
		var typed [][]byte
		h.prompt = func(string) ([]byte, error) {
			if len(typed) == len(x.answers) {
				return nil, errors.New("nobody answers")
			}
			typed = append(typed, []byte(x.answers[len(typed)]))
			return typed[len(typed)-1], nil
		}
		if code := h.run(t.Context(), x.args); code == exitOK || len(typed) != len(x.answers) {
			t.Errorf("%s: exit %d after %d answers: %s", name, code, len(typed), &h.err)
		}
		for _, b := range typed {
			if !bytes.Equal(b, make([]byte, len(b))) {
				t.Errorf("%s: %q is there still", name, b)
			}
		}
	}
}

func TestAFileOfAnExport(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	never := func(w io.Writer) (int, error) { return w.Write([]byte("x")) }
	if _, err := toNewFile(path, func(w io.Writer) (int, error) { return never(w) }); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("over a file: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "mine" {
		t.Errorf("it holds %q", b)
	}
	other := filepath.Join(filepath.Dir(path), "other")
	if _, err := toNewFile(other, func(w io.Writer) (int, error) {
		_, _ = never(w)
		return 0, errors.New("it breaks off")
	}); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(other); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a file is left: %v", err)
	}
	if n, err := toNewFile(other, func(w io.Writer) (int, error) { return never(w) }); n != 1 || err != nil {
		t.Error(n, err)
	}
	if info, err := os.Stat(other); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}
