package controllers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"quicproquo.dev/controllers/resources"
)

// appliedAnnotation is the hash of an object as it was last applied: it tells
// that a field was taken out of what is desired, which a comparison with what
// is there cannot.
const appliedAnnotation = "messaging.quicproquo.dev/applied-hash"

// takenError says that a name the cell needs belongs to somebody else.
type takenError struct{ kind, name, cell string }

func (e *takenError) Error() string {
	return fmt.Sprintf("%s %s exists and does not belong to this cell: remove or rename it, or, if it is this cell's, label it %s=%s and %s=%s",
		e.kind, e.name, resources.CellLabel, e.cell, resources.ManagedByLabel, resources.Manager)
}

func isTaken(err error) bool {
	var taken *takenError
	return errors.As(err, &taken)
}

// leavingError says that what the cell needs anew is still being removed.
type leavingError struct{ kind, name string }

func (e *leavingError) Error() string {
	return fmt.Sprintf("%s %s is still being removed", e.kind, e.name)
}

// passing reports errors after which the same attempt may succeed.
func passing(err error) bool {
	var leaving *leavingError
	var transport *url.Error
	return errors.As(err, &leaving) || errors.As(err, &transport) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) ||
		apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err) ||
		apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

// apply makes the cluster have desired, owned by the cell, and returns the
// object as it is then. It writes only if something is to be changed.
func apply[T client.Object](ctx context.Context, s *scope, desired T) (T, error) {
	var none T
	live, err := find(ctx, s, desired)
	if err != nil {
		return none, err
	}
	tree, err := desiredTree(s, desired)
	if err != nil {
		return none, err
	}
	because := "it is not there"
	if !isNil(live) {
		if because, err = unsatisfied(live, tree); err != nil || because == "" {
			return live, err
		}
	}
	kind := desired.GetObjectKind().GroupVersionKind().Kind
	ctrl.LoggerFrom(ctx).Info("applying", "kind", kind, "object", desired.GetName(), "because", because)
	err = s.Apply(ctx, client.ApplyConfigurationFromUnstructured(tree), client.FieldOwner(resources.Manager), client.ForceOwnership)
	if err != nil {
		return none, fmt.Errorf("applying %s %s: %w", kind, desired.GetName(), err)
	}
	applied := fresh(desired)
	return applied, runtime.DefaultUnstructuredConverter.FromUnstructured(tree.Object, applied)
}

// find returns the object of the name of desired, nil if there is none. The
// cache holds only what carries our label; whether the name is free, the API
// server knows.
func find[T client.Object](ctx context.Context, s *scope, desired T) (T, error) {
	var none T
	live := fresh(desired)
	key := client.ObjectKeyFromObject(desired)
	err := s.Get(ctx, key, live)
	if apierrors.IsNotFound(err) {
		live = fresh(desired)
		err = s.Live.Get(ctx, key, live)
	}
	if apierrors.IsNotFound(err) {
		return none, nil
	}
	if err != nil {
		return none, err
	}
	return live, s.mayTake(desired.GetObjectKind().GroupVersionKind().Kind, live)
}

// mayTake reports who else an object belongs to.
func (s *scope) mayTake(kind string, live client.Object) error {
	controller := metav1.GetControllerOf(live)
	switch {
	case live.GetDeletionTimestamp() != nil:
		return &leavingError{kind, live.GetName()}
	case controller != nil && controller.UID == s.cell.UID:
		return nil
	case controller != nil && controller.Kind == s.cell.Kind && controller.Name == s.cell.Name:
		return &leavingError{kind, live.GetName()} // Of a deleted cell of this name; it is collected soon.
	case controller == nil && s.belongs(live):
		return nil
	}
	return &takenError{kind, live.GetName(), s.cell.Name}
}

// belongs reports whether an object without an owner carries the cell's
// labels: it was left by an earlier cell of this name, or restored.
func (s *scope) belongs(object client.Object) bool {
	labels := object.GetLabels()
	return labels[resources.CellLabel] == s.cell.Name && labels[resources.ManagedByLabel] == resources.Manager
}

// desiredTree is what is sent to the API server.
func desiredTree[T client.Object](s *scope, desired T) (*unstructured.Unstructured, error) {
	object, ok := desired.DeepCopyObject().(client.Object)
	if !ok {
		return nil, fmt.Errorf("%T is no object", desired)
	}
	if _, outlives := any(desired).(*corev1.Secret); !outlives {
		if err := controllerutil.SetControllerReference(s.cell, object, s.Scheme()); err != nil {
			return nil, err
		}
	}
	tree, err := toTree(object)
	if err != nil {
		return nil, err
	}
	hash, err := hashTree(tree)
	if err != nil {
		return nil, err
	}
	annotations := tree.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[appliedAnnotation] = hash
	tree.SetAnnotations(annotations)
	return tree, nil
}

func toTree(object client.Object) (*unstructured.Unstructured, error) {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return nil, err
	}
	delete(fields, "status")
	unstructured.RemoveNestedField(fields, "metadata", "creationTimestamp")
	return &unstructured.Unstructured{Object: fields}, nil
}

func hashTree(tree *unstructured.Unstructured) (string, error) {
	b, err := json.Marshal(tree.Object) // With sorted keys.
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8]), nil
}

// unsatisfied returns the path of a field of tree, the hash included, that
// live has not; "" if it has all.
func unsatisfied(live client.Object, tree *unstructured.Unstructured) (string, error) {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(live)
	if err != nil {
		return "", err
	}
	wanted := tree.DeepCopy()
	delete(wanted.Object, "apiVersion") // Typed objects come from the cache without.
	delete(wanted.Object, "kind")
	return lacking(fields, wanted.Object), nil
}

// fresh returns a new, empty object of the same type.
func fresh[T client.Object](like T) T {
	object, _ := reflect.New(reflect.TypeOf(like).Elem()).Interface().(T) //nolint:errcheck // It has the type of like.
	return object
}

func isNil[T client.Object](object T) bool { return reflect.ValueOf(object).IsNil() }
