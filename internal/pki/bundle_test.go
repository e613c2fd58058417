package pki

import (
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseCAs(t *testing.T) {
	t.Parallel()
	ca := string(makeCA(t).CertPEM())
	for name, x := range map[string]struct {
		text string
		n    int
		want string
	}{
		"one": {ca, 1, ""}, "with blanks": {"\n\n" + ca + "\r\n" + ca + "  ", 2, ""}, "with comments": {"# ours\n" + ca + "# theirs\n# too\n" + ca, 2, ""},
		"only a comment": {"# nothing\n", 0, "no PEM"}, "nothing": {"", 0, "there is no certificate"}, "text before": {"Issuer: x\n" + ca, 0, "no PEM"},
		"cut off": {ca[:len(ca)/2], 0, "no PEM"}, "as many as there may be": {strings.Repeat(ca, MaxBundle), MaxBundle, ""}, "more": {strings.Repeat(ca, MaxBundle+1), 0, "more than 64"},
	} {
		got, err := ParseCAs([]byte(x.text))
		if len(got) != x.n || (err == nil) != (x.want == "") || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %d, %v, want %q", name, len(got), err, x.want)
		}
	}
}

func FuzzParseCAs(f *testing.F) {
	ca, err := NewCA("test", epoch, time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(ca.CertPEM()))
	f.Add("# x\n" + string(ca.CertPEM()) + "\n-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		cas, err := ParseCAs([]byte(text))
		if (err == nil) != (len(cas) > 0) || slices.ContainsFunc(cas, func(c *x509.Certificate) bool { return !c.IsCA }) {
			t.Errorf("%d certificates, %v", len(cas), err)
		}
	})
}

func TestIssueClient(t *testing.T) {
	t.Parallel()
	ca := makeCA(t)
	cert, key, err := ca.IssueClient("ops", []string{"spiffe://example.org/ops"}, epoch, 1000*day)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ParseCertificate(cert)
	if err != nil || !strings.Contains(string(key), "PRIVATE KEY") {
		t.Fatal(err)
	}
	if leaf.IsCA || leaf.Subject.CommonName != "ops" || len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://example.org/ops" ||
		!slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || leaf.NotAfter.After(ca.cert.NotAfter) || leaf.CheckSignatureFrom(ca.cert) != nil {
		t.Errorf("%+v", leaf)
	}
	if err := VerifyPinned([][]byte{leaf.Raw, ca.cert.Raw}, pinOf(t, ca), "ops", epoch); err == nil {
		t.Error("it passes for a server's")
	}
	for what, uris := range map[string][]string{"no scheme": {"ops"}, "no URI": {"%"}} {
		if _, _, err := ca.IssueClient("ops", uris, epoch, day); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
	if _, _, err := ca.IssueClient("ops", nil, epoch.Add(400*day), day); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("of an expired CA: %v", err)
	}
}
