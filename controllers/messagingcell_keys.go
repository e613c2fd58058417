package controllers

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers/resources"
	"quicproquo.dev/internal/cellkeys"
)

// keyring is what the cell's keys are used for here: to name other secrets by
// a hash that tells nothing about them, and to mint admin tokens.
type keyring struct {
	file   []byte
	salt   []byte
	tokens []cellkeys.Key // Sign admin tokens.
}

// digest identifies a value, however easily guessed, to whoever has the keys.
func (k *keyring) digest(purpose string, values ...[]byte) string {
	m := hmac.New(sha256.New, k.salt)
	m.Write([]byte(purpose))
	for _, value := range values {
		sum := sha256.Sum256(value) // Each of one length, so that no two lists are the same.
		m.Write(sum[:])
	}
	return hex.EncodeToString(m.Sum(nil)[:8])
}

// reconcileKeys makes the cell's own keys, once. What they have sealed cannot
// be opened without them, so lost ones are never made anew over existing data.
func reconcileKeys(ctx context.Context, s *scope) (ctrl.Result, error) {
	name := resources.KeysName(s.cell)
	secret, err := s.ownSecret(ctx, name)
	if err != nil {
		return ctrl.Result{}, err
	}
	if secret == nil {
		data, err := s.hasData(ctx)
		if err != nil {
			return ctrl.Result{}, err
		}
		if data {
			s.bad(v1alpha1.ConditionSecretsReady, v1alpha1.ReasonSecretLost, "Secret %s with the keys of this cell's data is gone: restore it from a backup, label %s=%s included; "+
				"if the data may be lost, delete the cell and its data, and apply it anew", name, resources.CellLabel, s.cell.Name)
			return ctrl.Result{}, nil
		}
		if secret, err = s.generateKeys(ctx); err != nil {
			return ctrl.Result{}, err
		}
	}
	file := secret.Data[resources.KeysKey]
	keys, err := cellkeys.Parse(file)
	if err != nil {
		s.bad(v1alpha1.ConditionSecretsReady, v1alpha1.ReasonSecretInvalid, "Secret %s, key %s: %s: restore it from a backup", name, resources.KeysKey, err)
		return ctrl.Result{}, nil
	}
	s.keys = &keyring{file: file, salt: keys.NameIndex, tokens: keys.Tokens}
	s.good(v1alpha1.ConditionSecretsReady, "certificate and keys are in place")
	return ctrl.Result{}, nil
}

func (s *scope) generateKeys(ctx context.Context) (*corev1.Secret, error) {
	file, err := cellkeys.Generate().Marshal()
	if err != nil {
		return nil, err
	}
	secret := resources.Keys(s.cell, file)
	if err := s.createSecret(ctx, secret); err != nil {
		return nil, err
	}
	s.did(ctx, "KeysGenerated", "GenerateKeys", "made the cell's keys in Secret %s: without it nobody can log in and nothing sealed can be read, so keep a copy", secret.Name)
	return secret, nil
}

// hasData reports whether a database was filled under keys that existed once.
func (s *scope) hasData(ctx context.Context) (bool, error) {
	if s.cell.Status.Migration != "" {
		return true, nil
	}
	if s.cell.Spec.Database.Embedded == nil {
		return false, nil
	}
	claim, err := s.volumeClaim(ctx)
	return claim != nil, err
}

// readSecret returns a Secret, nil if there is none.
func (s *scope) readSecret(ctx context.Context, name string) (*corev1.Secret, error) {
	var secret corev1.Secret
	err := s.Live.Get(ctx, s.named(name), &secret)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return &secret, err
}

// ownSecret is readSecret for one that the operator makes.
func (s *scope) ownSecret(ctx context.Context, name string) (*corev1.Secret, error) {
	secret, err := s.readSecret(ctx, name)
	if err != nil || secret == nil {
		return nil, err
	}
	return secret, s.mayTake("Secret", secret)
}

// createSecret never replaces one: whoever was first has made the secrets.
func (s *scope) createSecret(ctx context.Context, secret *corev1.Secret) error {
	return s.Create(ctx, secret, client.FieldOwner(resources.Manager))
}
