package keystore

import (
	"errors"
	"os"
	"testing"
)

var second, third = []byte("battery staple"), []byte("third")

func opensWith(t *testing.T, dir string, passphrase []byte) bool {
	t.Helper()
	s, err := Open(dir, passphrase)
	if err != nil && !errors.Is(err, ErrWrongPassphrase) {
		t.Fatal(err)
	}
	if err == nil {
		if got := get(t, s, "a"); got != "content" {
			t.Errorf("a = %q", got)
		}
	}
	return err == nil
}

// expectPassphrases says which of the three open the profile.
func expectPassphrases(t *testing.T, when, dir string, want ...bool) {
	t.Helper()
	for i, p := range [][]byte{passphrase, second, third} {
		if got := opensWith(t, dir, p); got != want[i] {
			t.Errorf("%s: passphrase %d opens: %t, want %t", when, i+1, got, want[i])
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRekey(t *testing.T) {
	t.Parallel()
	s := makeStore(t)
	put(t, s, "a", "content")
	first := keepInode(t, s.profilePath())
	before := first()
	ctx := t.Context()
	if err := s.PrepareRekey(ctx, nil); !errors.Is(err, ErrEmptyPassphrase) {
		t.Errorf("an empty one: %v", err)
	}
	must(t, s.CommitRekey(ctx)) // Nothing to commit.
	must(t, s.AbandonRekey(ctx))
	must(t, s.PrepareRekey(ctx, second))
	if pending, err := s.RekeyPending(); err != nil || !pending {
		t.Errorf("pending: %t, %v", pending, err)
	}
	expectPassphrases(t, "prepared", s.dir, true, true, false)
	must(t, s.AbandonRekey(ctx))
	expectPassphrases(t, "abandoned", s.dir, true, false, false)
	must(t, s.PrepareRekey(ctx, second))
	must(t, s.PrepareRekey(ctx, third))
	expectPassphrases(t, "prepared again", s.dir, true, false, true)
	must(t, s.CommitRekey(ctx))
	expectPassphrases(t, "committed", s.dir, false, false, true)
	if pending, _ := s.RekeyPending(); pending {
		t.Error("still pending")
	}
	if _, _, err := openProfile("", first(), passphrase); err == nil || len(before) != profileSize {
		t.Error("the replaced file still opens with the first passphrase")
	}
	reopened, err := Open(s.dir, third)
	must(t, err)
	if reopened.kdf != testKDF {
		t.Errorf("the cost is %+v now", reopened.kdf)
	}
	if info, err := os.Stat(s.profilePath()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// Whoever opens the profile with the passphrase that turned out right settles for it.
func TestSettleRekey(t *testing.T) {
	t.Parallel()
	for i, p := range [][]byte{passphrase, second} {
		s := makeStore(t)
		put(t, s, "a", "content")
		must(t, s.PrepareRekey(t.Context(), second))
		by, err := Open(s.dir, p)
		must(t, err)
		must(t, by.SettleRekey(t.Context()))
		expectPassphrases(t, "settled", s.dir, i == 0, i == 1, false)
		must(t, by.SettleRekey(t.Context())) // Nothing to settle.
		expectPassphrases(t, "settled twice", s.dir, i == 0, i == 1, false)
	}
	s := makeStore(t)
	put(t, s, "a", "content")
	must(t, s.PrepareRekey(t.Context(), second))
	by, err := Open(s.dir, second)
	must(t, err)
	must(t, by.PrepareRekey(t.Context(), third)) // The second became the account's; the first must not come back.
	expectPassphrases(t, "prepared from the second", s.dir, false, true, true)
}

// At no point of a change is there a moment at which no passphrase opens the profile, or a third one does.
func TestCrashWhileRekeying(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		name, step  string
		do          func(*Store) error
		one, two    bool
		prepareOnly bool
	}{
		{"prepare", "prepared", func(s *Store) error { return s.PrepareRekey(t.Context(), second) }, true, false, true},
		{"prepare", "renamed", func(s *Store) error { return s.PrepareRekey(t.Context(), second) }, true, true, true},
		{"commit", "linked", func(s *Store) error { return s.CommitRekey(t.Context()) }, true, true, false},
		{"commit", "renamed", func(s *Store) error { return s.CommitRekey(t.Context()) }, false, true, false},
		{"commit", "synced", func(s *Store) error { return s.CommitRekey(t.Context()) }, false, true, false},
		{"commit", "wiped", func(s *Store) error { return s.CommitRekey(t.Context()) }, false, true, false},
		{"abandon", "renamed", func(s *Store) error { return s.AbandonRekey(t.Context()) }, true, false, false},
		{"abandon", "wiped", func(s *Store) error { return s.AbandonRekey(t.Context()) }, true, false, false},
	} {
		t.Run(x.name+" "+x.step, func(t *testing.T) {
			t.Parallel()
			s := makeStore(t)
			put(t, s, "a", "content")
			if !x.prepareOnly {
				must(t, s.PrepareRekey(t.Context(), second))
			}
			first := keepInode(t, s.profilePath())
			reached := crashAt(s, x.step)
			if err := x.do(s); !errors.Is(err, errCrash) || !*reached {
				t.Fatalf("%v, reached: %t", err, *reached)
			}
			expectPassphrases(t, "after the crash", s.dir, x.one, x.two, false)
			_, _, err := openProfile("", first(), passphrase) // Opening swept.
			if (err == nil) != x.one {
				t.Errorf("the first file opens: %t", err == nil)
			}
			entries, err := os.ReadDir(s.dir)
			must(t, err)
			for _, e := range entries {
				if e.Name()[0] == '.' {
					t.Errorf("%s was left behind", e.Name())
				}
			}
		})
	}
}

func TestDestroyTakesTheSecondFileToo(t *testing.T) {
	t.Parallel()
	s := makeStore(t)
	must(t, s.PrepareRekey(t.Context(), second))
	next := keepInode(t, s.nextPath())
	must(t, s.Destroy())
	if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	if _, _, err := openProfile("", next(), second); err == nil {
		t.Error("the second file still opens")
	}
}
