package debian

import (
	"archive/tar"
	"bytes"
	"reflect"
	"testing"

	"quicproquo.dev/hack/images/layer"
)

func TestParse(t *testing.T) {
	t.Parallel()
	const hash = "bd22b4e61b6d4c1a6f1fbcd7a5f86a5ae7dfa76b6e0e5e5f1e2b1b5e6d0f9c01"
	out := "Reading package lists...\nThe following NEW packages will be installed:\n  tzdata zlib1g\n" +
		"'http://mirror/pool/zlib1g_1.2.13.dfsg-1_amd64.deb' zlib1g_1%3a1.2.13.dfsg-1_amd64.deb 86700 SHA256:" + hash + "\n" +
		"'http://mirror/pool/tzdata_2026a-0%2bdeb12u1_all.deb' tzdata_2026a-0+deb12u1_all.deb 300000 SHA256:" + hash + "\n" +
		"'http://mirror/pool/perl_5.36.0-7_amd64.deb' perl_5.36.0-7_amd64.deb 1 SHA256:" + hash + "\n"
	got, err := parse([]byte(out), []string{"perl"})
	want := []Package{
		{"tzdata", "2026a-0+deb12u1", "tzdata_2026a-0+deb12u1_all.deb", hash},
		{"zlib1g", "1:1.2.13.dfsg-1", "zlib1g_1%3a1.2.13.dfsg-1_amd64.deb", hash},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v (%v), want %+v", got, err, want)
	}
	// A weaker hash is none.
	if _, err := parse([]byte("'http://mirror/a_1_all.deb' a_1_all.deb 1 MD5Sum:0123\n"), nil); err == nil {
		t.Error("a package without SHA-256 is taken")
	}
}

func TestReadTar(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []*tar.Header{
		{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "./lib/", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "./lib/x86/libz.so.1.2", Mode: 0o644, Size: 3, Uname: "builder"},
		{Typeflag: tar.TypeSymlink, Name: "./lib/x86/libz.so.1", Linkname: "libz.so.1.2"},
		{Typeflag: tar.TypeLink, Name: "./sbin/z", Linkname: "./lib/x86/libz.so.1.2"},
		{Typeflag: tar.TypeReg, Name: "./usr/share/man/z", Size: 0},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte("zip")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	tree := layer.Tree{}
	if err := readTar(&b, tree, func(name string) bool { return name != "usr/share/man/z" }); err != nil {
		t.Fatal(err)
	}
	want := layer.Tree{
		"usr/lib":                 {Type: tar.TypeDir, Mode: 0o755},
		"usr/lib/x86/libz.so.1.2": {Type: tar.TypeReg, Mode: 0o644, Body: []byte("zip")},
		"usr/lib/x86/libz.so.1":   {Type: tar.TypeSymlink, Target: "libz.so.1.2"},
		"usr/sbin/z":              {Type: tar.TypeLink, Target: "usr/lib/x86/libz.so.1.2"},
	}
	if !reflect.DeepEqual(tree, want) {
		t.Errorf("%+v, want %+v", tree, want)
	}
}

func TestReadTarRefusesDevices(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeChar, Name: "./dev/mem"}); err != nil {
		t.Fatal(err)
	}
	if err := readTar(&b, layer.Tree{}, func(string) bool { return true }); err == nil {
		t.Error("a device is taken")
	}
}
