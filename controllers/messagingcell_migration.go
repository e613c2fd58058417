package controllers

import (
	"context"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers/resources"
)

// reconcileMigration runs one migration Job for each image with each database,
// before servers of that image run.
func reconcileMigration(ctx context.Context, s *scope) (ctrl.Result, error) {
	if !s.databaseKnown() || s.config == "" {
		s.waits(v1alpha1.ConditionSchemaMigrated, "waits for the database and the cell's keys")
		s.reached("")
		return ctrl.Result{}, nil
	}
	id := s.migrationID()
	if s.cell.Status.Migration == id {
		s.schemaReady()
		return ctrl.Result{}, nil
	}
	job, err := s.migrationJob(ctx, id)
	if err != nil {
		return ctrl.Result{}, err
	}
	if job == nil {
		s.waits(v1alpha1.ConditionSchemaMigrated, "waits for the database")
		s.reached(id)
		return ctrl.Result{}, nil
	}
	result, err := s.judgeMigration(ctx, job, id)
	s.reached(id)
	return result, err
}

// databaseKnown reports whether it is known which database the cell has: by
// its URI, and the embedded one also by its volume.
func (s *scope) databaseKnown() bool {
	return s.keys != nil && s.uri != nil && (s.claim != "" || s.cell.Spec.Database.SecretRef != nil)
}

// migrationID names a database and an image: "DATABASE.IMAGE".
func (s *scope) migrationID() string {
	database := s.keys.digest("database", s.uri, []byte(s.claim))
	return database + "." + s.keys.digest("image", []byte(s.image()))
}

// migrationJob returns the Job of a migration, made if the database is there
// to be migrated, nil if neither is. What has been made stays as it is: a Job
// cannot be changed.
func (s *scope) migrationJob(ctx context.Context, id string) (*batchv1.Job, error) {
	desired := resources.Migration(s.cell, s.image(), s.migrationKey(id))
	job, err := find(ctx, s, desired)
	if err != nil || job != nil || !s.database {
		return job, err
	}
	if job, err = apply(ctx, s, desired); err != nil {
		return nil, err
	}
	s.did(ctx, "MigrationStarted", "Migrate", "Job %s brings the schema up to image %s", job.Name, s.image())
	return job, nil
}

func (s *scope) migrationKey(id string) string { return s.keys.digest("migration", []byte(id))[:10] }

func (s *scope) judgeMigration(ctx context.Context, job *batchv1.Job, id string) (ctrl.Result, error) {
	pods, err := s.jobPods(ctx, job)
	if err != nil {
		return ctrl.Result{}, err
	}
	late, look := stuck(pods, s.now)
	switch {
	case jobIs(job, batchv1.JobComplete):
		s.cell.Status.Migration = id
		s.schemaReady()
		return ctrl.Result{}, nil
	case jobIs(job, batchv1.JobFailed):
		s.bad(v1alpha1.ConditionSchemaMigrated, v1alpha1.ReasonMigrationFailed, "Job %s failed%s: see kubectl logs job/%s, put right what it says; "+
			"it is tried again in ten minutes, or once the Job is deleted", job.Name, trouble(pods), job.Name)
	case late:
		s.bad(v1alpha1.ConditionSchemaMigrated, v1alpha1.ReasonMigrationFailed, "Job %s does not start%s: put that right, or change spec.image", job.Name, trouble(pods))
	default:
		s.progressing(v1alpha1.ConditionSchemaMigrated, "Job %s brings the schema up to image %s%s", job.Name, s.image(), trouble(pods))
	}
	return look, nil
}

func (s *scope) schemaReady() {
	s.migrated = true
	s.good(v1alpha1.ConditionSchemaMigrated, "the schema is what image %s needs", s.image())
	s.reached(s.cell.Status.Migration)
}

// reached says what a migration tells about a database that is not ours to
// watch: that it answered, or that nobody has asked it yet.
func (s *scope) reached(id string) {
	if s.cell.Spec.Database.SecretRef == nil || s.verdicts[v1alpha1.ConditionDatabaseReady].Type != "" {
		return
	}
	was, _, _ := strings.Cut(s.cell.Status.Migration, ".")
	is, _, _ := strings.Cut(id, ".")
	if is != "" && was == is {
		s.good(v1alpha1.ConditionDatabaseReady, "PostgreSQL answered the last migration")
		return
	}
	s.say(v1alpha1.ConditionDatabaseReady, metav1.ConditionUnknown, v1alpha1.ReasonProgressing, "the migration finds out whether PostgreSQL answers")
}

func (s *scope) jobPods(ctx context.Context, job *batchv1.Job) ([]corev1.Pod, error) {
	pods, err := s.listPods(ctx, resources.ComponentMigration)
	return slices.DeleteFunc(pods, func(pod corev1.Pod) bool { return pod.Labels[batchv1.JobNameLabel] != job.Name }), err
}

func jobIs(job *batchv1.Job, kind batchv1.JobConditionType) bool {
	return slices.ContainsFunc(job.Status.Conditions, func(c batchv1.JobCondition) bool {
		return c.Type == kind && c.Status == corev1.ConditionTrue
	})
}
