package controllers

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers/resources"
	"quicproquo.dev/internal/pki"
)

// lookAgain is when to look again at what is not ours to watch: a ConfigMap
// without the cell's labels.
const lookAgain = 30 * time.Second

// reconcileClientCAs looks at the bundle that the servers judge client
// certificates by. Somebody else keeps it; the servers load it again by
// themselves, and keep what they have when it is broken.
func reconcileClientCAs(ctx context.Context, s *scope) (ctrl.Result, error) {
	ref, key := resources.ClientCARef(s.cell)
	if ref.Kind == "" {
		s.clientCAs = true
		return ctrl.Result{}, nil
	}
	bundle, there, err := s.readBundle(ctx, ref, key)
	if err != nil {
		return ctrl.Result{}, err
	}
	field := "spec.access.clientCA" + ref.Kind + "Ref"
	switch {
	case !there:
		s.bad(v1alpha1.ConditionSecretsReady, v1alpha1.ReasonSecretNotFound, "%s %s with the CAs of client certificates is not there: create it (kubectl create %s --from-file=%s=FILE), or remove %s",
			ref.Kind, ref.Name, createCommand(ref), key, field)
		return again(lookAgain), nil
	case len(bundle) == 0:
		s.bad(v1alpha1.ConditionSecretsReady, v1alpha1.ReasonSecretInvalid, "%s %s has no key %s: put the certificates of the CAs that issue client certificates there, in PEM, or name another key in %s.key",
			ref.Kind, ref.Name, key, field)
		return again(lookAgain), nil
	}
	if _, err := pki.ParseCAs(bundle); err != nil {
		s.bad(v1alpha1.ConditionSecretsReady, v1alpha1.ReasonSecretInvalid, "%s %s, key %s: %s", ref.Kind, ref.Name, key, err)
		return again(lookAgain), nil
	}
	s.clientCAs = true
	return ctrl.Result{}, nil
}

func createCommand(ref resources.Ref) string {
	if ref.Kind == "Secret" {
		return "secret generic " + ref.Name
	}
	return "configmap " + ref.Name
}

// readBundle returns what stands under a key of a Secret or ConfigMap, and
// whether that is there.
func (s *scope) readBundle(ctx context.Context, ref resources.Ref, key string) (bundle []byte, there bool, err error) {
	if ref.Kind == "Secret" {
		secret, err := s.readSecret(ctx, ref.Name)
		if err != nil || secret == nil {
			return nil, false, err
		}
		return secret.Data[key], true, nil
	}
	var configMap corev1.ConfigMap
	err = s.Live.Get(ctx, s.named(ref.Name), &configMap)
	switch {
	case apierrors.IsNotFound(err):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("reading ConfigMap %s: %w", ref.Name, err)
	}
	if text, ok := configMap.Data[key]; ok {
		return []byte(text), true, nil
	}
	return configMap.BinaryData[key], true, nil
}
