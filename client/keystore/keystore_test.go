package keystore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

var (
	testKDF    = KDF{Time: 1, MemoryKiB: 64, Threads: 1}
	passphrase = []byte("correct horse")
)

func makeStore(t *testing.T) *Store {
	t.Helper()
	s, err := Create(filepath.Join(t.TempDir(), "profile"), passphrase, testKDF)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func reopen(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *Store, name, content string) {
	t.Helper()
	if err := tryPut(s, name, content); err != nil {
		t.Fatal(err)
	}
}

func tryPut(s *Store, name, content string) error {
	return s.Update(context.Background(), func(tx *Tx) error { return tx.Put(name, []byte(content)) })
}

func get(t *testing.T, s *Store, name string) string {
	t.Helper()
	b, err := tryGet(s, name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func tryGet(s *Store, name string) (b []byte, err error) {
	err = s.View(context.Background(), func(tx *Tx) error {
		b, err = tx.Get(name)
		return err
	})
	return b, err
}

func recordPath(s *Store, name string) string { return filepath.Join(s.dir, recordsDir, name) }

func TestRecordsSurviveReopening(t *testing.T) {
	t.Parallel()
	s := makeStore(t)
	put(t, s, "account", "first")
	put(t, s, "channel-1", "")
	put(t, s, "account", "second")
	s = reopen(t, s.Dir())
	if got := get(t, s, "account"); got != "second" {
		t.Errorf("account = %q", got)
	}
	if got := get(t, s, "channel-1"); got != "" {
		t.Errorf("channel-1 = %q", got)
	}
	err := s.View(context.Background(), func(tx *Tx) error {
		names, err := tx.List("channel-")
		if len(names) != 1 || names[0] != "channel-1" {
			t.Errorf("List = %v", names)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	s := makeStore(t)
	put(t, s, "a", "x")
	for range 2 { // What is not there can be deleted too.
		if err := s.Update(context.Background(), func(tx *Tx) error { return tx.Delete("a") }); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tryGet(s, "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get after Delete: %v", err)
	}
	expectFiles(t, s)
}

func TestVersionsDiffer(t *testing.T) {
	t.Parallel()
	s := makeStore(t)
	seen := map[Version]bool{}
	for range 3 {
		put(t, s, "a", "same")
		err := s.View(context.Background(), func(tx *Tx) error {
			v, err := tx.Version("a")
			seen[v] = true
			again, err2 := tx.Version("a")
			if v != again {
				t.Error("a version changed without a write")
			}
			return errors.Join(err, err2)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != 3 {
		t.Errorf("%d versions of 3 writes", len(seen))
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := makeStore(t)
	empty := t.TempDir()
	for name, tc := range map[string]struct {
		do   func() error
		want error
	}{
		"wrong passphrase":       {func() error { _, err := Open(s.dir, []byte("wrong")); return err }, ErrWrongPassphrase},
		"empty passphrase":       {func() error { _, err := Open(s.dir, nil); return err }, ErrEmptyPassphrase},
		"create without one":     {func() error { _, err := Create(empty, nil, testKDF); return err }, ErrEmptyPassphrase},
		"no profile":             {func() error { _, err := Open(empty, passphrase); return err }, ErrNoProfile},
		"create twice":           {func() error { _, err := Create(s.dir, passphrase, testKDF); return err }, ErrProfileExists},
		"missing record":         {func() error { _, err := tryGet(s, "nothing"); return err }, ErrNotFound},
		"name with a slash":      {func() error { return tryPut(s, "../profile", "x") }, ErrInvalidName},
		"empty name":             {func() error { return tryPut(s, "", "x") }, ErrInvalidName},
		"writing inside a View":  {func() error { return s.View(t.Context(), func(tx *Tx) error { return tx.Put("a", nil) }) }, ErrReadOnly},
		"deleting inside a View": {func() error { return s.View(t.Context(), func(tx *Tx) error { return tx.Delete("a") }) }, ErrReadOnly},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := tc.do(); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestModes(t *testing.T) {
	t.Parallel()
	s := makeStore(t)
	put(t, s, "a", "x")
	for path, want := range map[string]os.FileMode{
		s.dir: 0o700, filepath.Join(s.dir, recordsDir): 0o700,
		filepath.Join(s.dir, profileFile): 0o600, recordPath(s, "a"): 0o600,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	}
}

// TestDamage flips one bit of each byte of a record and of the profile file: every flip must be noticed.
func TestDamage(t *testing.T) {
	t.Parallel()
	s := makeStore(t)
	put(t, s, "a", "content")
	for _, path := range []string{recordPath(s, "a"), filepath.Join(s.dir, profileFile)} {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range whole {
			bad := bytes.Clone(whole)
			bad[i] ^= 1
			expectCorrupt(t, s, path, bad)
		}
		for _, n := range []int{0, 1, 95, len(whole) - 1} {
			expectCorrupt(t, s, path, whole[:n])
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := get(t, reopen(t, s.dir), "a"); got != "content" {
		t.Errorf("after putting everything back: %q", got)
	}
}

func expectCorrupt(t *testing.T, s *Store, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(s.dir, passphrase)
	if err == nil {
		_, err = tryGet(s, "a")
	}
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) || corrupt.File != path {
		t.Fatalf("damaged %s: %v", filepath.Base(path), err)
	}
}

func TestSwappedFiles(t *testing.T) {
	t.Parallel()
	s := makeStore(t)
	put(t, s, "a", "of a")
	put(t, s, "b", "of b")
	if err := os.Rename(recordPath(s, "a"), recordPath(s, "b")); err != nil {
		t.Fatal(err)
	}
	var corrupt *CorruptError
	if _, err := tryGet(s, "b"); !errors.As(err, &corrupt) {
		t.Errorf("a file under another's name: %v", err)
	}
}

// TestSplicedFiles puts the header of one version before the content of another.
func TestSplicedFiles(t *testing.T) {
	t.Parallel()
	s := makeStore(t)
	put(t, s, "a", "one")
	one, _ := os.ReadFile(recordPath(s, "a"))
	put(t, s, "a", "two")
	two, _ := os.ReadFile(recordPath(s, "a"))
	expectCorrupt(t, s, recordPath(s, "a"), append(bytes.Clone(two[:bodyOffset]), one[bodyOffset:]...))
}

func TestContentIsNotReadable(t *testing.T) {
	t.Parallel()
	s := makeStore(t)
	put(t, s, "a", "a very secret text")
	b, err := os.ReadFile(recordPath(s, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("secret")) {
		t.Error("the content stands in the file in clear")
	}
}

func TestProfileParametersAreBounded(t *testing.T) {
	t.Parallel()
	for _, k := range []KDF{{0, 64, 1}, {1, 1 << 30, 1}, {1 << 20, 64, 1}, {1, 1, 4}, {1, 64, 0}} {
		if _, err := Create(t.TempDir(), passphrase, k); err == nil {
			t.Errorf("%+v was taken", k)
		}
	}
}

// expectFiles checks that the records' folder holds exactly these files.
func expectFiles(t *testing.T, s *Store, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, recordsDir))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(want) {
		t.Errorf("the folder holds %v, want %v", entries, want)
		return
	}
	for i, e := range entries {
		if e.Name() != want[i] {
			t.Errorf("the folder holds %v, want %v", entries, want)
		}
	}
}

func TestDestroy(t *testing.T) {
	t.Parallel()
	s := makeStore(t)
	put(t, s, "a", "secret")
	old := keepInode(t, recordPath(s, "a"))
	key := bytes.Clone(s.key)
	if err := s.Destroy(); err != nil {
		t.Fatal(err)
	}
	if opens(&Store{key: key}, old()) {
		t.Error("a record of a destroyed profile still opens")
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}

	s = makeStore(t)
	mine := filepath.Join(s.dir, "mine")
	if err := os.WriteFile(mine, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Destroy(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mine); err != nil {
		t.Errorf("a stranger's file is gone: %v", err)
	}
}

// TestTwoCreators: of two who make a profile in one place, one is told.
func TestTwoCreators(t *testing.T) {
	t.Parallel()
	for range 20 {
		dir := filepath.Join(t.TempDir(), "profile")
		errs := make(chan error)
		for range 2 {
			go func() {
				_, err := Create(dir, passphrase, testKDF)
				errs <- err
			}()
		}
		first, second := <-errs, <-errs
		if (first == nil) == (second == nil) || !errors.Is(errors.Join(first, second), ErrProfileExists) {
			t.Errorf("the creators got %v and %v", first, second)
		}
		reopen(t, dir)
	}
}
