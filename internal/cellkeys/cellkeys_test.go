package cellkeys

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// secrets are the texts that must appear nowhere: each key in base64, hex and decimal bytes.
func secrets(k *Keys) []string {
	all := [][]byte{k.OPAQUE.OPRFSeed, k.OPAQUE.AKEPrivateKey, k.NameIndex}
	for _, o := range k.PreviousOPAQUE {
		all = append(all, o.OPRFSeed, o.AKEPrivateKey)
	}
	for _, key := range append(append([]Key{}, k.Tokens...), k.Sealing...) {
		all = append(all, key.Key)
	}
	var texts []string
	for _, b := range all {
		if len(b) < 8 {
			continue
		}
		texts = append(texts, base64.StdEncoding.EncodeToString(b)[:8], fmt.Sprintf("%x", b[:8]), strings.Trim(fmt.Sprint(b[:4]), "[]")) //nolint:staticcheck // The form of a printed slice is what is looked for.
	}
	return texts
}

func wantNoSecret(t *testing.T, k *Keys, text string) {
	t.Helper()
	for _, s := range secrets(k) {
		if strings.Contains(text, s) {
			t.Errorf("a key shows in: %s", text)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	k := Generate()
	b, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := got.Marshal()
	if err != nil || !bytes.Equal(b, again) {
		t.Fatalf("what was loaded is not what was saved: %v", err)
	}
	if _, err := got.OPAQUE.Server(); err != nil {
		t.Fatal(err)
	}
	if other := Generate(); bytes.Equal(other.NameIndex, k.NameIndex) || bytes.Equal(other.OPAQUE.AKEPrivateKey, k.OPAQUE.AKEPrivateKey) {
		t.Error("keys are not random")
	}
}

// A file of one set of OPAQUE keys is one that releases before there were several can read.
func TestRotation(t *testing.T) {
	t.Parallel()
	k := Generate()
	if b, _ := k.Marshal(); bytes.Contains(b, []byte("previousOPAQUE")) || bytes.Contains(b, []byte("id: 0")) || k.OPAQUE.KeyID() != 1 {
		t.Errorf("an unrotated file says more than it did, or has the id %d", k.OPAQUE.KeyID())
	}
	first := k.OPAQUE
	k.RotateOPAQUE()
	second := k.OPAQUE
	k.RotateOPAQUE()
	b, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	all := append([]OPAQUE{got.OPAQUE}, got.PreviousOPAQUE...)
	if len(all) != 3 || all[0].KeyID() != 3 || all[1].KeyID() != 2 || all[2].KeyID() != 1 ||
		!bytes.Equal(all[1].OPRFSeed, second.OPRFSeed) || !bytes.Equal(all[2].AKEPrivateKey, first.AKEPrivateKey) || bytes.Equal(all[0].OPRFSeed, second.OPRFSeed) {
		t.Error("the key sets are not three, the newest first")
	}
	got.PreviousOPAQUE = nil // The old ones dropped: the next id is still a new one.
	got.RotateOPAQUE()
	if got.OPAQUE.KeyID() != 4 {
		t.Errorf("id %d after 3", got.OPAQUE.KeyID())
	}
	wantNoSecret(t, got, fmt.Sprintf("%+v %#v", got, got.PreviousOPAQUE))
}

func TestRefusalsNameTheFieldAndNoKey(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		name, want string
		change     func(*Keys)
	}{
		{"version", "version", func(k *Keys) { k.Version = "quicproquo.dev/keys/v9" }},
		{"short name index", "nameIndex", func(k *Keys) { k.NameIndex = k.NameIndex[1:] }},
		{"no name index", "nameIndex", func(k *Keys) { k.NameIndex = nil }},
		{"no token keys", "tokens", func(k *Keys) { k.Tokens = nil }},
		{"no sealing keys", "sealing", func(k *Keys) { k.Sealing = nil }},
		{"short token key", "tokens: key 1", func(k *Keys) { k.Tokens[0].Key = k.Tokens[0].Key[:31] }},
		{"an id twice", "sealing: key 1", func(k *Keys) { k.Sealing = append(k.Sealing, k.Sealing[0]) }},
		{"short OPRF seed", "oprfSeed", func(k *Keys) { k.OPAQUE.OPRFSeed = k.OPAQUE.OPRFSeed[1:] }},
		{"no OPRF seed", "oprfSeed", func(k *Keys) { k.OPAQUE.OPRFSeed = nil }},
		{"no private key", "akePrivateKey", func(k *Keys) { k.OPAQUE.AKEPrivateKey = nil }},
		{"private key above the order", "akePrivateKey", func(k *Keys) { k.OPAQUE.AKEPrivateKey = bytes.Repeat([]byte{0xff}, 32) }},
		{"zero private key", "akePrivateKey", func(k *Keys) { k.OPAQUE.AKEPrivateKey = make([]byte, 32) }},
		{"an OPAQUE id twice", "the id 1", func(k *Keys) { k.PreviousOPAQUE = []OPAQUE{Generate().OPAQUE} }},
		{"bad previous OPAQUE keys", "oprfSeed", func(k *Keys) { k.RotateOPAQUE(); k.PreviousOPAQUE[0].OPRFSeed = nil }},
		{"another's public key", "belong together", func(k *Keys) { k.OPAQUE.AKEPublicKey = Generate().OPAQUE.AKEPublicKey }},
		{"no public key", "belong together", func(k *Keys) { k.OPAQUE.AKEPublicKey = nil }},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			k := Generate()
			x.change(k)
			b, err := k.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(b)
			if err == nil || !strings.Contains(err.Error(), x.want) {
				t.Fatalf("got %v, want it to name %q", err, x.want)
			}
			wantNoSecret(t, k, err.Error())
		})
	}
}

func TestBrokenFilesAreRefusedWithoutTheirContent(t *testing.T) {
	t.Parallel()
	k := Generate()
	b, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"unknown field": append(bytes.Clone(b), "more: 1\n"...),
		"not base64":    bytes.Replace(b, []byte("nameIndex: "), []byte("nameIndex: '!'#"), 1),
		"cut off":       b[:len(b)/2],
		"a list":        []byte("- " + base64.StdEncoding.EncodeToString(k.NameIndex)),
		"a bare key":    []byte(base64.StdEncoding.EncodeToString(k.NameIndex)),
		"tabs":          []byte("\tversion: x"),
		"nothing":       nil,
	} {
		_, err := Parse(content)
		if err == nil {
			t.Errorf("%s: taken", name)
			continue
		}
		wantNoSecret(t, k, err.Error())
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestKeysAreNeverPrinted(t *testing.T) {
	t.Parallel()
	k := Generate()
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("keys", "all", k, "opaque", k.OPAQUE, "key", k.Tokens[0])
	}
	wantNoSecret(t, k, log.String())
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		wantNoSecret(t, k, fmt.Sprintf(verb+verb+verb+verb, k, k.OPAQUE, k.Tokens[0], k.Sealing))
	}
}

func FuzzParse(f *testing.F) {
	b, err := yaml.Marshal(Generate())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("version: " + Version))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := Parse(b); err == nil {
			if _, err := k.OPAQUE.Server(); err != nil {
				t.Errorf("taken, but of no use: %v", err)
			}
		}
	})
}
