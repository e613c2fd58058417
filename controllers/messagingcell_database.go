package controllers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers/resources"
)

// reconcileDatabase sees to the PostgreSQL: one of the cell's own, or the one
// that the spec names.
func reconcileDatabase(ctx context.Context, s *scope) (ctrl.Result, error) {
	if s.cell.Spec.Database.SecretRef != nil {
		return ctrl.Result{}, s.givenDatabase(ctx)
	}
	return s.embeddedDatabase(ctx)
}

// givenDatabase looks at the Secret that spec.database.secretRef names.
// Whether PostgreSQL answers there, the migration finds out.
func (s *scope) givenDatabase(ctx context.Context) error {
	name, key := resources.DatabaseName(s.cell), resources.DatabaseKey(s.cell)
	secret, err := s.readSecret(ctx, name)
	if err != nil {
		return err
	}
	if secret == nil {
		s.bad(v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonSecretNotFound, "Secret %s is not there: create it "+
			"(kubectl create secret generic %s --from-literal=%s=postgres://USER:PASSWORD@HOST:5432/DATABASE), or change spec.database.secretRef.name", name, name, key)
		return nil
	}
	uri, ok := secret.Data[key]
	if !ok {
		s.bad(v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonSecretNotFound, "Secret %s has no key %s: add it with the connection URI, or change spec.database.secretRef.key", name, key)
		return nil
	}
	if err := checkURI(string(uri)); err != nil {
		s.bad(v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonSecretInvalid, "Secret %s, key %s: %s: write postgres://USER:PASSWORD@HOST:5432/DATABASE, special characters of the password percent-encoded", name, key, err)
		return nil
	}
	s.uri, s.database = uri, true
	return nil
}

// checkURI judges a connection URI. The error quotes nothing of it.
func checkURI(text string) error {
	uri, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("it is not a URI")
	case uri.Scheme != "postgres" && uri.Scheme != "postgresql":
		return errors.New("it does not begin with postgres://")
	case uri.Hostname() == "":
		return errors.New("it names no host")
	case uri.Path == "" || uri.Path == "/":
		return errors.New("it names no database")
	}
	return nil
}

// growPause is between two attempts to grow a volume: nobody tells when its
// storage class lets it.
const growPause = 5 * time.Minute

// embeddedDatabase runs a PostgreSQL for the cell.
func (s *scope) embeddedDatabase(ctx context.Context) (result ctrl.Result, err error) {
	secret, err := s.databaseSecret(ctx)
	if err != nil {
		return result, err
	}
	uri := secret.Data[resources.DatabaseURIKey]
	if fault := checkURI(string(uri)); fault != nil {
		s.bad(v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonSecretInvalid, "Secret %s, key %s: %s: delete the Secret to have it made anew", secret.Name, resources.DatabaseURIKey, fault)
		return result, nil //nolint:nilerr // The condition says it; an attempt more would change nothing.
	}
	s.uri = uri
	set, err := s.applyPostgres(ctx, secret.Data[resources.DatabasePasswordKey])
	if err != nil {
		return result, err
	}
	grown := s.growVolume(ctx)
	if grown != nil {
		result = again(growPause)
	}
	pods, err := s.listPods(ctx, resources.ComponentPostgres)
	if err != nil {
		return result, err
	}
	result = lowest(result, s.judgePostgres(set, pods, grown))
	return result, s.unstick(ctx, set, pods)
}

// databaseSecret makes the database's password if there is none; PostgreSQL
// takes a new one when it starts.
func (s *scope) databaseSecret(ctx context.Context) (*corev1.Secret, error) {
	secret, err := s.ownSecret(ctx, resources.DatabaseName(s.cell))
	if err != nil || secret != nil {
		return secret, err
	}
	secret = resources.Database(s.cell, rand.Text())
	if err := s.createSecret(ctx, secret); err != nil {
		return nil, err
	}
	s.did(ctx, "PasswordGenerated", "GeneratePassword", "made the database's password in Secret %s", secret.Name)
	return secret, nil
}

func (s *scope) applyPostgres(ctx context.Context, password []byte) (*appsv1.StatefulSet, error) {
	if _, err := apply(ctx, s, resources.PostgresService(s.cell)); err != nil {
		return nil, err
	}
	if s.keys == nil { // Without them the password has no name that tells nothing about it.
		return find(ctx, s, resources.Postgres(s.cell, resources.PostgresOptions{}))
	}
	options := resources.PostgresOptions{Image: s.Images.Postgres, PasswordHash: s.keys.digest("database password", password)}
	desired := resources.Postgres(s.cell, options)
	live, err := find(ctx, s, desired)
	if err != nil {
		return nil, err
	}
	if live != nil && claimDiffers(live, desired) {
		options.Claim = &live.Spec.VolumeClaimTemplates[0].Spec
		desired = resources.Postgres(s.cell, options)
	}
	return apply(ctx, s, desired)
}

// claimDiffers reports whether the claim that a StatefulSet was made with,
// which cannot be changed, is another than the spec asks for now.
func claimDiffers(live, desired *appsv1.StatefulSet) bool {
	if len(live.Spec.VolumeClaimTemplates) == 0 {
		return false
	}
	has, wants := live.Spec.VolumeClaimTemplates[0].Spec, desired.Spec.VolumeClaimTemplates[0].Spec
	return has.Resources.Requests.Storage().Cmp(*wants.Resources.Requests.Storage()) != 0
}

// growVolume asks for a larger volume; the claim of a StatefulSet does not
// follow its template. It also notes which volume there is.
func (s *scope) growVolume(ctx context.Context) error {
	claim, err := s.volumeClaim(ctx)
	if err != nil || claim == nil {
		return err
	}
	s.claim = string(claim.UID)
	want := resources.PostgresStorage(s.cell)
	if claim.Spec.Resources.Requests.Storage().Cmp(want) >= 0 {
		return nil
	}
	grown := claim.DeepCopy()
	grown.Spec.Resources.Requests[corev1.ResourceStorage] = want
	if err := s.Patch(ctx, grown, client.MergeFrom(claim), client.FieldOwner(resources.Manager)); err != nil {
		return fmt.Errorf("growing the volume to %s: %w", want.String(), err)
	}
	s.did(ctx, "VolumeGrown", "GrowVolume", "asked for %s for claim %s", want.String(), claim.Name)
	return nil
}

// volumeClaim returns the claim of the database's volume, nil if there is none.
// One that was restored need not carry our labels, and is then not in the
// cache.
func (s *scope) volumeClaim(ctx context.Context) (*corev1.PersistentVolumeClaim, error) {
	var claim corev1.PersistentVolumeClaim
	key := s.named(resources.PostgresClaimName(s.cell))
	err := s.Get(ctx, key, &claim)
	if apierrors.IsNotFound(err) {
		err = s.Live.Get(ctx, key, &claim)
	}
	if err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return &claim, nil
}

func (s *scope) judgePostgres(set *appsv1.StatefulSet, pods []corev1.Pod, grown error) ctrl.Result {
	s.database = set != nil && set.Status.ReadyReplicas > 0 && s.claim != ""
	late, look := stuck(pods, s.now)
	switch {
	case !s.database && late:
		s.bad(v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonRolloutStuck, "the embedded PostgreSQL does not start%s: put that right, or see kubectl describe pod %s-0", trouble(pods), resources.PostgresName(s.cell))
	case !s.database:
		s.progressing(v1alpha1.ConditionDatabaseReady, "the embedded PostgreSQL does not answer yet%s", trouble(pods))
	case grown != nil:
		s.say(v1alpha1.ConditionDatabaseReady, metav1.ConditionTrue, v1alpha1.ReasonApplyFailed, "the embedded PostgreSQL answers, but: %s", grown)
	default:
		s.good(v1alpha1.ConditionDatabaseReady, "the embedded PostgreSQL answers")
	}
	return look
}

// unstick removes a pod that will never be ready and that the StatefulSet
// would wait for before it puts the next revision in its place.
func (s *scope) unstick(ctx context.Context, set *appsv1.StatefulSet, pods []corev1.Pod) error {
	for i := range pods {
		pod := &pods[i]
		if !stuckRevision(set, pod) {
			continue
		}
		if err := s.Delete(ctx, pod, client.Preconditions{UID: &pod.UID}); err != nil {
			return client.IgnoreNotFound(err)
		}
		s.did(ctx, "PodReplaced", "ReplacePod", "removed pod %s, which was not ready, for its next revision", pod.Name)
	}
	return nil
}

func stuckRevision(set *appsv1.StatefulSet, pod *corev1.Pod) bool {
	if set == nil || set.Status.ObservedGeneration != set.Generation || set.Status.UpdateRevision == "" {
		return false
	}
	return pod.DeletionTimestamp == nil && !podReady(pod) && pod.Labels[appsv1.StatefulSetRevisionLabel] != set.Status.UpdateRevision
}
