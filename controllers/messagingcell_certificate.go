package controllers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers/resources"
	"quicproquo.dev/internal/pki"
)

const (
	day                 = 24 * time.Hour
	caLifetime          = 10 * 365 * day
	certificateLifetime = 90 * day
)

// reconcileCertificate sees to the certificate that servers present: one that
// the cell's own CA issues, or the one that the spec names.
func reconcileCertificate(ctx context.Context, s *scope) (ctrl.Result, error) {
	if s.cell.Spec.Endpoint.TLS.SecretName != "" {
		return givenCertificate(ctx, s)
	}
	ca, err := s.authority(ctx)
	if err != nil || ca == nil {
		return ctrl.Result{}, err
	}
	s.pin = ca.Pin()
	if _, err := apply(ctx, s, resources.CA(s.cell, ca.CertPEM(), resources.CAKeyName(s.cell))); err != nil {
		return ctrl.Result{}, err
	}
	return s.issued(ctx, ca)
}

// authority returns the cell's own CA, made if there never was one. Clients
// have pinned it: a lost one is not replaced behind their backs. nil means
// that a condition says what is wrong.
func (s *scope) authority(ctx context.Context) (*pki.CA, error) {
	name := resources.CAKeyName(s.cell)
	secret, err := s.ownSecret(ctx, name)
	if err != nil {
		return nil, err
	}
	if secret == nil {
		published, err := s.publishedCA(ctx)
		if err != nil {
			return nil, err
		}
		if published {
			s.bad(v1alpha1.ConditionSecretsReady, v1alpha1.ReasonSecretLost, "Secret %s with the CA that clients have pinned is gone: restore it from a backup, label %s=%s included; "+
				"or, if every client may pin another, delete ConfigMap %s as well to have a new CA made", name, resources.CellLabel, s.cell.Name, resources.CAName(s.cell))
			return nil, nil
		}
		return s.generateCA(ctx)
	}
	ca, err := pki.ParseCA(secret.Data[resources.CAKey], secret.Data[resources.CAPrivateKey])
	if err != nil {
		s.bad(v1alpha1.ConditionSecretsReady, v1alpha1.ReasonSecretInvalid, "Secret %s: %s: restore it from a backup", name, err)
		return nil, nil
	}
	return ca, nil
}

// publishedCA reports whether clients were given a CA of the cell's own.
func (s *scope) publishedCA(ctx context.Context) (bool, error) {
	published, err := find(ctx, s, resources.CA(s.cell, nil, ""))
	return published != nil && published.Annotations[resources.CASecretAnnotation] != "", err
}

func (s *scope) generateCA(ctx context.Context) (*pki.CA, error) {
	ca, err := pki.NewCA("quicproquo cell "+s.cell.Name, s.now, caLifetime)
	if err != nil {
		return nil, err
	}
	key, err := ca.KeyPEM()
	if err != nil {
		return nil, err
	}
	secret := resources.CAPair(s.cell, ca.CertPEM(), key)
	if err := s.createSecret(ctx, secret); err != nil {
		return nil, err
	}
	s.did(ctx, "CAGenerated", "GenerateCA", "made the cell's CA in Secret %s: clients know the cell by its pin %s", secret.Name, ca.Pin())
	return ca, nil
}

// certificate is what is known when it is decided whether to issue one.
type certificate struct {
	leaf  *x509.Certificate // nil: there is none that can be used.
	there bool              // The Secret exists.
	ca    *x509.Certificate
	hosts []string
	now   time.Time
}

// issueReasons say why a certificate is issued; the first that holds is told.
var issueReasons = []struct {
	name  string
	holds func(certificate) bool
}{
	{"Missing", func(c certificate) bool { return !c.there }},
	{"Unusable", func(c certificate) bool { return c.leaf == nil }},
	{"OtherAuthority", func(c certificate) bool { return c.leaf.CheckSignatureFrom(c.ca) != nil }},
	{"HostMissing", func(c certificate) bool {
		return slices.ContainsFunc(c.hosts, func(host string) bool { return c.leaf.VerifyHostname(host) != nil })
	}},
	{"RenewalDue", func(c certificate) bool { return !c.now.Before(renewal(c.leaf)) }},
}

// issueReason names why a certificate is to be issued, "" if it is not.
func issueReason(c certificate) string {
	for _, reason := range issueReasons {
		if reason.holds(c) {
			return reason.name
		}
	}
	return ""
}

// renewal is when two thirds of a certificate's life are over.
func renewal(leaf *x509.Certificate) time.Time {
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 3 * 2)
}

// issued sees to a certificate of the CA for all of the cell's addresses, and
// comes back when it is to be renewed.
func (s *scope) issued(ctx context.Context, ca *pki.CA) (ctrl.Result, error) {
	secret, err := s.ownSecret(ctx, resources.TLSName(s.cell))
	if err != nil {
		return ctrl.Result{}, err
	}
	c := certificate{there: secret != nil, ca: ca.Certificate(), now: s.now}
	if secret != nil {
		c.leaf, _, _ = parsePair(secret) //nolint:errcheck // What cannot be used is replaced.
	}
	c.hosts = hosts(s.cell, s.endpoint, s.pods, c.leaf)
	if reason := issueReason(c); reason != "" {
		if c.leaf, err = s.issue(ctx, ca, c.hosts, reason); err != nil {
			return ctrl.Result{}, err
		}
	}
	s.leaf = c.leaf
	s.good(v1alpha1.ConditionSecretsReady, "certificate and keys are in place")
	return again(max(renewal(c.leaf).Sub(s.now), time.Second)), nil
}

func (s *scope) issue(ctx context.Context, ca *pki.CA, hosts []string, reason string) (*x509.Certificate, error) {
	chain, key, err := ca.IssueServer(hosts, s.now, certificateLifetime)
	if err != nil {
		return nil, err
	}
	secret := resources.TLS(s.cell, chain, key)
	if _, err := apply(ctx, s, secret); err != nil {
		return nil, err
	}
	s.did(ctx, "CertificateIssued", "IssueCertificate", "issued a certificate for %v, because: %s", hosts, reason)
	leaf, _, err := parsePair(secret)
	return leaf, err
}

// parsePair reads a kubernetes.io/tls Secret: the leaf, and the chain that it
// begins. The error says what is wrong without quoting anything.
func parsePair(secret *corev1.Secret) (*x509.Certificate, []*x509.Certificate, error) {
	for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
		if len(secret.Data[key]) == 0 {
			return nil, nil, fmt.Errorf("it has no key %s", key)
		}
	}
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, nil, fmt.Errorf("%s and %s are no certificate and key in PEM that belong together", corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	}
	chain := make([]*x509.Certificate, len(pair.Certificate))
	for i, der := range pair.Certificate {
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return nil, nil, fmt.Errorf("certificate %d of %s cannot be read", i+1, corev1.TLSCertKey)
		}
	}
	return chain[0], chain, nil
}

// hosts are the names and addresses at which clients may reach a cell, sorted:
// inside the cluster, where the spec says, and where the Service is found. former
// is the certificate that there is, nil if none.
func hosts(cell *v1alpha1.MessagingCell, endpoint *corev1.Service, pods []corev1.Pod, former *x509.Certificate) []string {
	name := resources.EndpointName(cell)
	list := []string{name, name + "." + cell.Namespace, name + "." + cell.Namespace + ".svc", name + "." + cell.Namespace + ".svc.cluster.local"}
	list = append(list, cell.Spec.Endpoint.Host)
	if endpoint != nil {
		list = append(list, endpoint.Spec.ClusterIPs...)
		for _, ingress := range endpoint.Status.LoadBalancer.Ingress {
			list = append(list, ingress.IP, ingress.Hostname)
		}
	}
	if nodePortEndpoint(cell) {
		list = append(list, nodeAddresses(pods, former)...)
	}
	list = slices.DeleteFunc(list, func(host string) bool { return host == "" || host == corev1.ClusterIPNone })
	slices.Sort(list)
	return slices.Compact(list)
}

// maxFormerAddresses bounds what a certificate takes over from the one before.
const maxFormerAddresses = 16

// nodeAddresses are those of the nodes that run servers. While none does, as when
// a deleted cell is applied again, they are those of the former certificate: the
// servers probably return to where they were, and need not wait there for another
// certificate to reach them.
func nodeAddresses(pods []corev1.Pod, former *x509.Certificate) []string {
	var list []string
	for i := range pods {
		if ip := pods[i].Status.HostIP; ip != "" {
			list = append(list, ip)
		}
	}
	if len(list) > 0 || former == nil {
		return list
	}
	for _, ip := range former.IPAddresses[:min(maxFormerAddresses, len(former.IPAddresses))] {
		list = append(list, ip.String())
	}
	return list
}
