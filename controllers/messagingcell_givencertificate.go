package controllers

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers/resources"
	"quicproquo.dev/internal/pki"
)

// givenCertificate looks at the Secret that spec.endpoint.tls.secretName
// names. Somebody else renews it; the servers load it again by themselves.
func givenCertificate(ctx context.Context, s *scope) (ctrl.Result, error) {
	name := s.cell.Spec.Endpoint.TLS.SecretName
	secret, err := s.readSecret(ctx, name)
	if err != nil {
		return ctrl.Result{}, err
	}
	if secret == nil {
		s.bad(v1alpha1.ConditionSecretsReady, v1alpha1.ReasonSecretNotFound, "Secret %s is not there: create it (kubectl create secret tls %s --cert=FILE --key=FILE), "+
			"or remove spec.endpoint.tls.secretName for a certificate of the cell's own CA", name, name)
		return ctrl.Result{}, nil
	}
	leaf, chain, err := parsePair(secret)
	if err != nil {
		s.bad(v1alpha1.ConditionSecretsReady, v1alpha1.ReasonSecretInvalid, "Secret %s: %s: create it with kubectl create secret tls, or let cert-manager do so", name, err)
		return ctrl.Result{}, nil
	}
	if s.now.After(leaf.NotAfter) {
		s.bad(v1alpha1.ConditionSecretsReady, v1alpha1.ReasonSecretInvalid, "Secret %s: the certificate expired on %s: renew it", name, leaf.NotAfter.UTC().Format(time.DateTime))
		return ctrl.Result{}, nil
	}
	s.leaf = leaf
	if err := s.publishGiven(ctx, secret, chain); err != nil {
		return ctrl.Result{}, err
	}
	return again(leaf.NotAfter.Sub(s.now) + time.Second), nil
}

// publishGiven publishes the CA that comes with a given certificate. Its pin
// is only of use if servers present the CA, at the end of the chain.
func (s *scope) publishGiven(ctx context.Context, secret *corev1.Secret, chain []*x509.Certificate) error {
	last := chain[len(chain)-1]
	published := secret.Data[resources.CAKey] // As cert-manager writes it.
	if last.IsCA {
		s.pin = pki.PinOf(last)
		published = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: last.Raw})
		s.good(v1alpha1.ConditionSecretsReady, "certificate and keys are in place")
	} else {
		s.say(v1alpha1.ConditionSecretsReady, metav1.ConditionTrue, v1alpha1.ReasonPinUnknown, "the chain in Secret %s, key %s, does not end in a CA certificate, "+
			"so clients cannot pin it: append the CA's, or give clients its file (qpq --ca)", secret.Name, corev1.TLSCertKey)
	}
	if len(published) == 0 {
		s.unwanted[reference{"ConfigMap", resources.CAName(s.cell)}] = true
		return nil
	}
	_, err := apply(ctx, s, resources.CA(s.cell, published, ""))
	return err
}
