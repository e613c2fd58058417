package clustertest

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/internal/pki"
)

func (w *world) leaf(secret string) *x509.Certificate {
	w.Helper()
	var s corev1.Secret
	w.must(w.Get(w.Context(), w.key(secret), &s))
	cert, err := pki.ParseCertificate(s.Data["tls.crt"])
	w.must(err)
	return cert
}

// The certificate is for every address of the cell, and is issued anew when
// one is added, and after two thirds of its life; the pin stays, and so do the
// servers.
func TestCertificateFollowsTheCell(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pin := w.bringUp("demo", "{endpoint: {host: chat.example.org}}").Status.Pin
	var svc corev1.Service
	w.must(w.Get(t.Context(), w.key("demo"), &svc))
	for _, host := range []string{"demo", "demo." + w.ns, "demo." + w.ns + ".svc", "demo." + w.ns + ".svc.cluster.local", "chat.example.org", svc.Spec.ClusterIP, "192.0.2.10"} {
		if err := w.leaf("demo-tls").VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	first := w.leaf("demo-tls")
	deployment := awaitsObject(w, "demo", &appsv1.Deployment{})
	w.runServer(deployment, 7, "192.0.2.99")
	w.awaitsLeaf("one for the new node", func(c *x509.Certificate) bool { return c.VerifyHostname("192.0.2.99") == nil })

	w.clock.SetTime(first.NotBefore.Add(59 * 24 * time.Hour))
	w.touch("demo")
	w.quiet()
	early := w.leaf("demo-tls")
	w.clock.SetTime(first.NotBefore.Add(61 * 24 * time.Hour))
	w.touch("demo")
	w.awaitsLeaf("a renewed one", func(c *x509.Certificate) bool { return c.SerialNumber.Cmp(early.SerialNumber) != 0 })
	w.awaits("demo", status.CurrentStatus)
	if got := w.cell("demo").Status.Pin; got != pin {
		t.Errorf("the pin changed from %s to %s", pin, got)
	}
	w.must(w.generation("demo", &appsv1.Deployment{}, deployment.Generation))
}

func (w *world) awaitsLeaf(what string, holds func(*x509.Certificate) bool) {
	w.Helper()
	w.eventually("a certificate: "+what, func() error {
		if leaf := w.leaf("demo-tls"); !holds(leaf) {
			return fmt.Errorf("it is for %v, %v, since %s", leaf.DNSNames, leaf.IPAddresses, leaf.NotBefore)
		}
		return nil
	})
}

// Until servers present a certificate for the address that is told, the cell
// is not ready: clients could not connect.
func TestCellWaitsForItsCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bringUp("demo", "{}")
	w.servers.freeze()
	w.apply("demo", "{endpoint: {host: chat.example.org}}")
	w.awaitsCondition("demo", v1alpha1.ConditionEndpointReady, metav1.ConditionFalse, v1alpha1.ReasonCertificatePending)
	w.awaits("demo", status.InProgressStatus)
	w.servers.each(func(s *fakeServer) { s.frozen = false })
	w.awaits("demo", status.CurrentStatus)
	if got := w.cell("demo").Status.Endpoint; !strings.HasPrefix(got, "chat.example.org:") {
		t.Errorf("the endpoint is %s", got)
	}
}

// chainFor returns a chain in PEM, with the CA's certificate or without, and
// its key.
func chainFor(w *world, withCA bool, hosts ...string) (ca *pki.CA, chain, key string) {
	w.Helper()
	ca, err := pki.NewCA("test", w.clock.Now(), 1000*time.Hour)
	w.must(err)
	c, k, err := ca.IssueServer(hosts, w.clock.Now(), 100*time.Hour)
	w.must(err)
	if !withCA {
		block, _ := pem.Decode(c)
		c = pem.EncodeToMemory(block)
	}
	return ca, string(c), string(k)
}

// A certificate that somebody else issued is used as it is; the pin is that of
// the CA it brings along, if it does.
func TestGivenCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const spec = "{endpoint: {host: chat.example.org, tls: {secretName: chat-tls}}}"
	w.apply("demo", spec)
	c := w.awaitsCondition("demo", v1alpha1.ConditionSecretsReady, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)
	if !strings.Contains(c.Message, "kubectl create secret tls chat-tls") {
		t.Errorf("the message is %q", c.Message)
	}
	w.awaits("demo", status.FailedStatus)

	_, chain, key := chainFor(w, true, "other.example.org")
	w.putSecret("chat-tls", map[string]string{"tls.crt": chain, "tls.key": "x"})
	w.awaitsCondition("demo", v1alpha1.ConditionSecretsReady, metav1.ConditionFalse, v1alpha1.ReasonSecretInvalid)

	w.putSecret("chat-tls", map[string]string{"tls.crt": chain, "tls.key": key})
	c = w.awaitsCondition("demo", v1alpha1.ConditionEndpointReady, metav1.ConditionFalse, v1alpha1.ReasonSecretInvalid)
	if !strings.Contains(c.Message, "not valid for chat.example.org") || !strings.Contains(c.Message, "set spec.endpoint.host") {
		t.Errorf("the message is %q", c.Message)
	}

	_, chain, key = chainFor(w, false, "chat.example.org")
	w.putSecret("chat-tls", map[string]string{"tls.crt": chain, "tls.key": key})
	w.bringUp("demo", spec)
	w.awaitsCondition("demo", v1alpha1.ConditionSecretsReady, metav1.ConditionTrue, v1alpha1.ReasonPinUnknown)
	if got := w.cell("demo").Status.Pin; got != "" {
		t.Errorf("pin %q of a chain without a CA", got)
	}
	w.must(w.gone(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "demo-ca", Namespace: w.ns}}))

	ca, chain, key := chainFor(w, true, "chat.example.org")
	w.putSecret("chat-tls", map[string]string{"tls.crt": chain, "tls.key": key})
	w.awaitsCondition("demo", v1alpha1.ConditionSecretsReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	w.awaits("demo", status.CurrentStatus)
	if got := w.cell("demo").Status.Pin; got != ca.Pin() {
		t.Errorf("pin %q, want that of the CA, %q", got, ca.Pin())
	}
	published := awaitsObject(w, "demo-ca", &corev1.ConfigMap{})
	if published.Data["ca.crt"] != string(ca.CertPEM()) {
		t.Error("another CA is published")
	}
}

// A cell can change over to a given certificate and back: its own CA is still
// there.
func TestChangeOfIssuer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	own := w.bringUp("demo", "{endpoint: {host: chat.example.org}}").Status.Pin
	ca, chain, key := chainFor(w, true, "chat.example.org")
	w.putSecret("chat-tls", map[string]string{"tls.crt": chain, "tls.key": key})
	w.changesPin("{endpoint: {host: chat.example.org, tls: {secretName: chat-tls}}}", ca.Pin())
	w.changesPin("{endpoint: {host: chat.example.org}}", own)
}

func (w *world) changesPin(spec, pin string) {
	w.Helper()
	w.apply("demo", spec)
	var d appsv1.Deployment
	w.eventually("servers with the other Secret", func() error {
		w.must(w.Get(w.Context(), w.key("demo"), &d))
		given := strings.Contains(spec, "chat-tls")
		if slices.ContainsFunc(d.Spec.Template.Spec.Volumes, func(v corev1.Volume) bool { return v.Secret != nil && v.Secret.SecretName == "chat-tls" }) != given {
			return fmt.Errorf("volumes are %v", d.Spec.Template.Spec.Volumes)
		}
		return nil
	})
	w.rollOut("demo", "192.0.2.10")
	w.awaits("demo", status.CurrentStatus)
	if got := w.cell("demo").Status.Pin; got != pin {
		w.Errorf("pin %q, want %q", got, pin)
	}
}
