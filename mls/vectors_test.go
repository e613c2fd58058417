package mls

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// hexBytes is a byte string that the vectors write in hexadecimal; null is nil.
type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(b []byte) error {
	var s *string
	if err := json.Unmarshal(b, &s); err != nil || s == nil {
		return err
	}
	v, err := hex.DecodeString(*s)
	*h = v
	return err
}

// loadVectors reads one of the official files.
func loadVectors[T any](t testing.TB, path string) []T {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var out []T
	if err := json.NewDecoder(z).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// runVectors runs check on every vector of a file, and fails if there are not
// exactly want of them or if one of them fails.
func runVectors[T any](t *testing.T, name string, want int, check func(*testing.T, T)) {
	t.Helper()
	runVectorFile(t, filepath.Join("testdata", "vectors", name+".json.gz"), want, check)
}

func runVectorFile[T any](t *testing.T, path string, want int, check func(*testing.T, T)) {
	t.Helper()
	vectors := loadVectors[T](t, path)
	passed := 0
	for i, v := range vectors {
		if t.Run("", func(t *testing.T) { check(t, v) }) {
			passed++
		} else {
			t.Errorf("vector %d failed", i)
		}
	}
	t.Logf("report: mls vectors, %s: %d run, %d passed", filepath.Base(path), len(vectors), passed)
	if len(vectors) != want || passed != want {
		t.Errorf("%s: %d run, %d passed, want %d", path, len(vectors), passed, want)
	}
}

// sharedVectors returns the path of a file that bears no license and so lies
// outside the project, and skips the test when it is not there.
func sharedVectors(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join("..", "..", "shared", "mls-vectors", name+".json.gz")
	if _, err := os.Stat(path); err != nil {
		t.Skipf("NOT RUN: the vectors of %s.json are not at %s", name, path)
	}
	return path
}

func wantBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %x, want %x", what, got, want)
	}
}

// mustDecode decodes with the strict reader and checks that encoding gives the same bytes.
func mustDecode[T encodable](t *testing.T, b []byte, f func(*reader) T) T {
	t.Helper()
	var v T
	if err := decode(b, "vector", func(r *reader) { v = f(r) }); err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "encoded again", encode(v), b)
	return v
}
