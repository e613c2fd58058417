package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

func makeCA(t *testing.T) *CA {
	t.Helper()
	ca, err := NewCA("test cell", epoch, 365*day)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// issue returns the chain that a server presents.
func issue(t *testing.T, ca *CA, hosts ...string) [][]byte {
	t.Helper()
	certPEM, _, err := ca.IssueServer(hosts, epoch, 30*day)
	if err != nil {
		t.Fatal(err)
	}
	return decodeChain(t, certPEM)
}

func decodeChain(t *testing.T, text []byte) [][]byte {
	t.Helper()
	var chain [][]byte
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		chain = append(chain, block.Bytes)
	}
	return chain
}

func pinOf(t *testing.T, ca *CA) [32]byte {
	t.Helper()
	pin, err := ParsePin(ca.Pin())
	if err != nil {
		t.Fatal(err)
	}
	return pin
}

// crossSign gives ca's key a certificate signed by another CA.
func crossSign(t *testing.T, ca, by *CA) []byte {
	t.Helper()
	cert, err := sign(ca.cert, by.cert, ca.key, by.key)
	if err != nil {
		t.Fatal(err)
	}
	return cert.Raw
}

func TestVerifyPinned(t *testing.T) {
	t.Parallel()
	ours, other := makeCA(t), makeCA(t)
	chain := issue(t, ours, "cell.example", "*.pods.example", "127.0.0.1", "::1")
	foreign := issue(t, other, "cell.example")
	crossed := [][]byte{foreign[0], crossSign(t, other, ours), ours.cert.Raw}
	leafKey, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	leafPin, err := ParsePin(PinOf(leafKey))
	if err != nil {
		t.Fatal(err)
	}
	pin, otherPin := pinOf(t, ours), pinOf(t, other)
	now := epoch.Add(day)

	for _, tc := range []struct {
		name  string
		chain [][]byte
		pin   [32]byte
		host  string
		now   time.Time
		want  string // part of the error; empty: accepted
	}{
		{"DNS name", chain, pin, "cell.example", now, ""},
		{"DNS name in capitals", chain, pin, "CELL.example", now, ""},
		{"wildcard", chain, pin, "a.pods.example", now, ""},
		{"IPv4", chain, pin, "127.0.0.1", now, ""},
		{"IPv6", chain, pin, "::1", now, ""},
		{"late clock", chain, pin, "cell.example", epoch.Add(-time.Minute), ""},
		{"cross-signed, old pin", crossed, pin, "cell.example", now, ""},
		{"cross-signed, new pin", crossed, otherPin, "cell.example", now, ""},
		{"a CA too many", append(chain[:2:2], other.cert.Raw), pin, "cell.example", now, ""},

		{"wrong CA", foreign, pin, "cell.example", now, other.Pin()},
		{"wrong pin", chain, otherPin, "cell.example", now, "does not have the expected pin"},
		{"no CA sent", chain[:1], pin, "cell.example", now, "presented no CA certificate"},
		{"the leaf's own pin", chain, leafPin, "cell.example", now, "does not have the expected pin"},
		{"the leaf as its own CA", [][]byte{chain[0], chain[0]}, leafPin, "cell.example", now, "does not have the expected pin"},
		{"our CA beside a foreign leaf", [][]byte{foreign[0], ours.cert.Raw}, pin, "cell.example", now, "signed by unknown authority"},
		{"our CA beside a foreign chain", append(foreign[:2:2], ours.cert.Raw), pin, "cell.example", now, "signed by unknown authority"},
		{"a CA as leaf", [][]byte{ours.cert.Raw, ours.cert.Raw}, pin, "cell.example", now, "not valid for any names"},
		{"wrong host", chain, pin, "other.example", now, "not other.example"},
		{"wildcard too deep", chain, pin, "a.b.pods.example", now, "not a.b.pods.example"},
		{"wrong IP", chain, pin, "127.0.0.2", now, "127.0.0.2"},
		{"no host", chain, pin, "", now, "no host name"},
		{"expired leaf", chain, pin, "cell.example", epoch.Add(31 * day), "expired"},
		{"expired CA", chain, pin, "cell.example", epoch.Add(400 * day), "expired"},
		{"not yet valid", chain, pin, "cell.example", epoch.Add(-day), "not yet valid"},
		{"no certificates", nil, pin, "cell.example", now, "no certificate"},
		{"too many", make([][]byte, maxChain+1), pin, "cell.example", now, "at most 8"},
		{"garbage leaf", [][]byte{[]byte("garbage"), ours.cert.Raw}, pin, "cell.example", now, "certificate 0 cannot be read"},
		{"garbage CA", [][]byte{chain[0], nil}, pin, "cell.example", now, "certificate 1 cannot be read"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := VerifyPinned(tc.chain, tc.pin, tc.host, tc.now)
			if tc.want == "" && err != nil {
				t.Errorf("refused: %v", err)
			}
			if tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestVerifyPinnedErrors(t *testing.T) {
	t.Parallel()
	ca := makeCA(t)
	chain := issue(t, ca, "cell.example")
	if err := VerifyPinned(chain, pinOf(t, makeCA(t)), "cell.example", epoch); !errors.Is(err, ErrPinMismatch) {
		t.Errorf("wrong pin: %v is not ErrPinMismatch", err)
	}
	var host x509.HostnameError
	if err := VerifyPinned(chain, pinOf(t, ca), "other.example", epoch); !errors.As(err, &host) {
		t.Errorf("wrong host: %v is not a HostnameError", err)
	}
}

// A client certificate of the same CA is no server.
func TestVerifyPinnedKeyUsage(t *testing.T) {
	t.Parallel()
	ca := makeCA(t)
	template, err := serverTemplate([]string{"cell.example"}, epoch, day)
	if err != nil {
		t.Fatal(err)
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	leaf, err := sign(template, ca.cert, makeCA(t).key, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	err = VerifyPinned([][]byte{leaf.Raw, ca.cert.Raw}, pinOf(t, ca), "cell.example", epoch)
	if err == nil || !strings.Contains(err.Error(), "incompatible key usage") {
		t.Errorf("got %v", err)
	}
}

func TestParsePin(t *testing.T) {
	t.Parallel()
	good := strings.Repeat("0123456789abcdef", 4)
	for text, want := range map[string]string{
		good:                               "",
		strings.ToUpper(good):              "",
		"":                                 "0 digits instead of 64",
		good[1:]:                           "63 digits",
		good + "00":                        "66 digits",
		" " + good[1:]:                     `" " at position 1`,
		good[:63] + "g":                    `"g" at position 64`,
		strings.Replace(good, "1", "é", 1): "at position 2",
	} {
		pin, err := ParsePin(text)
		switch {
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("ParsePin(%q): %v, want an error with %q", text, err, want)
		case want == "" && (err != nil || pin[0] != 0x01 || pin[31] != 0xef):
			t.Errorf("ParsePin(%q) = %x, %v", text, pin, err)
		}
	}
}

func FuzzParsePin(f *testing.F) {
	f.Add(strings.Repeat("0123456789abcdef", 4))
	f.Add("é")
	f.Fuzz(func(t *testing.T, text string) {
		if pin, err := ParsePin(text); (err == nil) != (len(text) == 64 && strings.IndexFunc(text, notHex) < 0) {
			t.Errorf("ParsePin(%q) = %x, %v", text, pin, err)
		}
	})
}

// The pin of a fixed certificate, as told by:
// openssl x509 -in ca.crt -pubkey -noout | openssl pkey -pubin -outform DER | sha256sum.
func TestPinOfKnownCertificate(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("testdata", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ParseCertificate(text)
	if err != nil {
		t.Fatal(err)
	}
	const want = "848dd72d0011319ba28cb0cc7681632153c34a412293f9a8e2c6286b8770a8ec"
	if got := PinOf(cert); got != want {
		t.Errorf("PinOf = %s, want %s", got, want)
	}
}

func TestIssueServerRefuses(t *testing.T) {
	t.Parallel()
	ca := makeCA(t)
	for _, tc := range []struct {
		name     string
		hosts    []string
		now      time.Time
		lifetime time.Duration
		want     string
	}{
		{"no hosts", nil, epoch, day, "at least one"},
		{"a port", []string{"cell.example:4201"}, epoch, day, "without scheme, port"},
		{"brackets", []string{"[::1]"}, epoch, day, "brackets"},
		{"empty", []string{""}, epoch, day, "neither"},
		{"empty label", []string{"a..b"}, epoch, day, "neither"},
		{"hyphen", []string{"-a.example"}, epoch, day, "neither"},
		{"long label", []string{strings.Repeat("a", 64)}, epoch, day, "neither"},
		{"long name", []string{strings.Repeat("a.", 127) + "b"}, epoch, day, "neither"},
		{"no lifetime", []string{"a"}, epoch, 0, "positive"},
		{"expired CA", []string{"a"}, epoch.Add(366 * day), day, "expired on 2031-01-01"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if _, _, err := ca.IssueServer(tc.hosts, tc.now, tc.lifetime); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestLeafNeverOutlivesCA(t *testing.T) {
	t.Parallel()
	ca := makeCA(t)
	certPEM, _, err := ca.IssueServer([]string{"a"}, epoch.Add(360*day), 30*day)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ParseCertificate(certPEM)
	if err != nil {
		t.Fatal(err)
	}
	if !leaf.NotAfter.Equal(ca.cert.NotAfter) {
		t.Errorf("the leaf ends %v, the CA %v", leaf.NotAfter, ca.cert.NotAfter)
	}
}

// A real handshake with what IssueServer returns.
func TestHandshake(t *testing.T) {
	t.Parallel()
	ca := makeCA(t)
	certPEM, keyPEM, err := ca.IssueServer([]string{"cell.example"}, epoch, day)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	for name, pin := range map[string][32]byte{"right pin": pinOf(t, ca), "wrong pin": pinOf(t, makeCA(t))} {
		err := handshake(pair, pin)
		if wrong := name == "wrong pin"; wrong != errors.Is(err, ErrPinMismatch) || !wrong && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func handshake(pair tls.Certificate, pin [32]byte) error {
	a, b := net.Pipe()
	server := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Handshake() // the client's verdict is what counts
		_ = a.Close()
	}()
	client := tls.Client(b, &tls.Config{
		InsecureSkipVerify: true, // VerifyConnection does it
		MinVersion:         tls.VersionTLS13,
		VerifyConnection: func(cs tls.ConnectionState) error {
			raw := make([][]byte, len(cs.PeerCertificates))
			for i, cert := range cs.PeerCertificates {
				raw[i] = cert.Raw
			}
			return VerifyPinned(raw, pin, "cell.example", epoch)
		},
	})
	err := client.Handshake()
	_ = b.Close()
	<-done
	return err
}

func TestSaveAndLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := Load(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load of an empty directory: %v", err)
	}
	ca := makeCA(t)
	for range 2 { // also over existing files
		if err := ca.Save(dir); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]os.FileMode{KeyFile: 0o600, CertFile: 0o644} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("Save left %v (%v)", entries, err)
	}
	loaded, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyPinned(issue(t, loaded, "a"), pinOf(t, ca), "a", epoch); err != nil {
		t.Errorf("a certificate of the loaded CA: %v", err)
	}
	if err := os.Chmod(filepath.Join(dir, KeyFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("Load of a key that others may read: %v", err)
	}
}

func TestParseCARefuses(t *testing.T) {
	t.Parallel()
	ca := makeCA(t)
	key, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	otherKey, err := makeCA(t).KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	leaf, leafKey, err := ca.IssueServer([]string{"a"}, epoch, day)
	if err != nil {
		t.Fatal(err)
	}
	garbled := pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: []byte("garbage")})
	garbledKey := pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: []byte("garbage")})
	for _, tc := range []struct {
		name      string
		cert, key []byte
		want      string
	}{
		{"no certificate", nil, key, "no PEM certificate"},
		{"key as certificate", key, key, "no PEM certificate"},
		{"garbled certificate", garbled, key, "reading a certificate"},
		{"no key", ca.CertPEM(), nil, "no PEM private key"},
		{"garbled key", ca.CertPEM(), garbledKey, "reading a private key"},
		{"another key", ca.CertPEM(), otherKey, "does not belong"},
		{"a leaf", leaf, leafKey, "not one of a CA"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseCA(tc.cert, tc.key)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
			if err != nil && bytes.Contains([]byte(err.Error()), []byte("garbage")) {
				t.Errorf("the error quotes its input: %v", err)
			}
		})
	}
}
