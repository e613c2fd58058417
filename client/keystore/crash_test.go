package keystore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
)

var errCrash = errors.New("crash")

// crashAt makes a write end after the named step, as if the process had died there.
func crashAt(s *Store, step string) (reached *bool) {
	reached = new(bool)
	s.crash = func(at string) error {
		if at != step {
			return nil
		}
		*reached = true
		return errCrash
	}
	return reached
}

// keepInode holds the inode of a file, as an attacker with the medium does, and tells what it holds later.
func keepInode(t *testing.T, path string) func() []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return func() []byte {
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, info.Size())
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		return b
	}
}

func opens(s *Store, b []byte) bool {
	_, err := openRecord(s.key, "", "a", b)
	return err == nil
}

func TestReplacedVersionCannotBeOpened(t *testing.T) {
	t.Parallel()
	for name, replace := range map[string]func(*Tx) error{
		"put":    func(tx *Tx) error { return tx.Put("a", []byte("new")) },
		"delete": func(tx *Tx) error { return tx.Delete("a") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := makeStore(t)
			put(t, s, "a", "old")
			old := keepInode(t, recordPath(s, "a"))
			before := old()
			if !opens(s, before) {
				t.Fatal("the live version does not open: this test would prove nothing")
			}
			if err := s.Update(context.Background(), replace); err != nil {
				t.Fatal(err)
			}
			expectKeyGone(t, before, old())
			if opens(s, old()) {
				t.Error("the replaced version still opens")
			}
		})
	}
}

// expectKeyGone checks that what opened a file is no longer in it, whatever became of its content.
func expectKeyGone(t *testing.T, before, after []byte) {
	t.Helper()
	if bytes.Equal(before[fileKeyOffset:bodyNonce], after[fileKeyOffset:bodyNonce]) {
		t.Error("the wrapped file key was not overwritten")
	}
}

func TestCrashWhilePutting(t *testing.T) {
	t.Parallel()
	for step, want := range map[string]string{
		"written": "old", "linked": "old", "renamed": "new", "synced": "new", "wiped": "new",
	} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			s := makeStore(t)
			put(t, s, "a", "old")
			old := keepInode(t, recordPath(s, "a"))
			reached := crashAt(s, step)
			if err := tryPut(s, "a", "new"); !errors.Is(err, errCrash) || !*reached {
				t.Fatalf("Put: %v", err)
			}
			s = reopen(t, s.dir)
			if got := get(t, s, "a"); got != want {
				t.Errorf("after the crash a = %q, want %q", got, want)
			}
			if opens(s, old()) != (want == "old") {
				t.Errorf("the old version opens: %t", opens(s, old()))
			}
			expectFiles(t, s, "a")
			put(t, s, "a", "newer")
			if opens(s, old()) {
				t.Error("the old version opens after one more write")
			}
		})
	}
}

func TestCrashWhileDeleting(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"renamed", "synced", "wiped"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			s := makeStore(t)
			put(t, s, "a", "old")
			old := keepInode(t, recordPath(s, "a"))
			crashAt(s, step)
			err := s.Update(context.Background(), func(tx *Tx) error { return tx.Delete("a") })
			if !errors.Is(err, errCrash) {
				t.Fatalf("Delete: %v", err)
			}
			s = reopen(t, s.dir)
			if _, err := tryGet(s, "a"); !errors.Is(err, ErrNotFound) {
				t.Errorf("after the crash: %v", err)
			}
			if opens(s, old()) {
				t.Error("the deleted version still opens")
			}
			expectFiles(t, s)
		})
	}
}

// TestSweepLeavesStrangersAlone: the profile's directory may hold files of others.
func TestSweepLeavesStrangersAlone(t *testing.T) {
	t.Parallel()
	s := makeStore(t)
	for _, name := range []string{".tmp-notes-1", ".old-letter", "readme"} {
		if err := os.WriteFile(s.dir+"/"+name, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reopen(t, s.dir)
	for _, name := range []string{".tmp-notes-1", ".old-letter", "readme"} {
		if b, err := os.ReadFile(s.dir + "/" + name); err != nil || string(b) != "mine" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}
