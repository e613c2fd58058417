package clustertest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers/resources"
	"quicproquo.dev/internal/admintoken"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/internal/pki"
)

// adminTokens are what the operator keeps for admins, with the keys that the
// cell verifies them by.
func (w *world) adminTokens() (map[string][]byte, *admintoken.Keys) {
	w.Helper()
	secret := awaitsObject(w, "demo-admin", &corev1.Secret{})
	keys, err := cellkeys.Parse(awaitsObject(w, "demo-keys", &corev1.Secret{}).Data["keys.yaml"])
	w.must(err)
	tokens, err := admintoken.New(keys.Tokens)
	w.must(err)
	return secret.Data, tokens
}

// verify fails unless the Secret has valid tokens of both roles.
func (w *world) verifyTokens(data map[string][]byte, keys *admintoken.Keys) {
	w.Helper()
	for key, role := range map[string]admintoken.Role{"token": admintoken.CellAdmin, "auditor-token": admintoken.Auditor} {
		token, err := admintoken.Parse(string(data[key]))
		w.must(err)
		c, err := keys.Verify(token, w.clock.Now())
		if err != nil || c.Role != role || c.Name != "demo-admin/"+key || c.Expires.Sub(w.clock.Now()) < 11*time.Hour {
			w.Errorf("%s: %+v, %v", key, c, err)
		}
	}
}

// Admin tokens are there with the cell, renewed in time, and otherwise left
// alone, also by an operator that starts anew.
func TestAdminTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bringUp("demo", "{}")
	first, keys := w.adminTokens()
	w.verifyTokens(first, keys)

	before := w.quiet()
	w.clock.SetTime(w.clock.Now().Add(11 * time.Hour))
	w.stop()
	w.startOperator()
	w.touch("demo")
	w.quiet()
	if writes := w.writes.to(before, "/secrets/"); len(writes) > 0 {
		t.Errorf("written before their time: %v", writes)
	}
	w.clock.SetTime(w.clock.Now().Add(time.Hour))
	w.touch("demo")
	w.eventually("renewed tokens", func() error {
		data, _ := w.adminTokens()
		if string(data["token"]) == string(first["token"]) || string(data["auditor-token"]) == string(first["auditor-token"]) {
			return fmt.Errorf("they are the old ones")
		}
		return nil
	})
	second, _ := w.adminTokens()
	w.verifyTokens(second, keys)
	w.quiet()
	if writes := w.writes.to(before, "/secrets/demo-admin"); len(writes) != 1 {
		t.Errorf("renewed with %d writes: %v", len(writes), writes)
	}

	// What somebody breaks or removes is made anew; what is good stays.
	w.putSecretLabelled("demo-admin", map[string]string{"token": "broken", "auditor-token": string(second["auditor-token"])})
	w.eventually("a repaired token", func() error {
		data, _ := w.adminTokens()
		if string(data["token"]) == "broken" || string(data["auditor-token"]) != string(second["auditor-token"]) {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	w.must(w.Delete(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "demo-admin", Namespace: w.ns}}))
	third, _ := w.adminTokens()
	w.verifyTokens(third, keys)
	w.awaits("demo", status.CurrentStatus)
}

// putSecretLabelled replaces what a Secret of the cell holds.
func (w *world) putSecretLabelled(name string, data map[string]string) {
	w.Helper()
	secret := awaitsObject(w, name, &corev1.Secret{})
	secret.Data = map[string][]byte{}
	for key, value := range data {
		secret.Data[key] = []byte(value)
	}
	w.must(w.Update(w.Context(), secret))
}

// A rotated token key has the tokens minted anew, for those of the old one end
// with it.
func TestAdminTokensFollowTheKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bringUp("demo", "{}")
	first, _ := w.adminTokens()
	secret := awaitsObject(w, "demo-keys", &corev1.Secret{})
	keys, err := cellkeys.Parse(secret.Data["keys.yaml"])
	w.must(err)
	keys.Tokens = append([]cellkeys.Key{{ID: 9, Key: cellkeys.Generate().Tokens[0].Key}}, keys.Tokens...)
	secret.Data["keys.yaml"], err = keys.Marshal()
	w.must(err)
	w.must(w.Update(t.Context(), secret))
	w.eventually("tokens of the new key", func() error {
		data, _ := w.adminTokens()
		if string(data["token"]) == string(first["token"]) {
			return fmt.Errorf("they are the old ones")
		}
		return nil
	})
	second, verifier := w.adminTokens()
	w.verifyTokens(second, verifier)
	old, err := admintoken.Parse(string(first["token"]))
	w.must(err)
	if _, err := verifier.Verify(old, w.clock.Now()); err != nil {
		t.Errorf("there is no overlap: %v", err)
	}
}

// Somebody else's Secret of that name is left alone.
func TestAdminTokensOverwriteNobodys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.putSecret("demo-admin", map[string]string{"password": "somebody's"})
	w.apply("demo", "{}")
	w.awaitsCondition("demo", v1alpha1.ConditionSecretsReady, metav1.ConditionFalse, v1alpha1.ReasonNameTaken)
	if s := awaitsObject(w, "demo-admin", &corev1.Secret{}); string(s.Data["password"]) != "somebody's" || len(s.Data) != 1 {
		t.Error("it was changed")
	}
}

// The CAs of client certificates come from a Secret or a ConfigMap that
// somebody else keeps; until there are such, new servers wait, and old ones run.
func TestClientCAs(t *testing.T) {
	t.Parallel()
	for kind, field := range map[string]string{"Secret": "clientCASecretRef", "ConfigMap": "clientCAConfigMapRef"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			spec := "{access: {clientCertificates: required, " + field + ": {name: client-ca}, admins: [{name: ops, role: cellAdmin}]}}"
			w.apply("demo", spec)
			w.runPostgres("demo")
			w.migrate("demo", w.images.Cell)
			command := map[string]string{"Secret": "kubectl create secret generic client-ca --from-file=ca.crt=FILE", "ConfigMap": "kubectl create configmap client-ca --from-file=ca.crt=FILE"}
			w.awaitsMessage(v1alpha1.ConditionSecretsReady, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound, command[kind])
			w.awaitsMessage(v1alpha1.ConditionAvailable, metav1.ConditionFalse, v1alpha1.ReasonDependencyNotReady, "CAs of client certificates")

			ca, err := pki.NewCA("clients", time.Now(), time.Hour)
			w.must(err)
			leaf, _, err := ca.IssueClient("ops", nil, time.Now(), time.Hour)
			w.must(err)
			for _, x := range []struct{ key, content, part string }{
				{"other.crt", string(ca.CertPEM()), "has no key ca.crt"}, {"ca.crt", "nonsense", "no PEM"}, {"ca.crt", string(leaf), "is not a CA's"},
			} {
				w.putBundle(kind, map[string]string{x.key: x.content})
				w.awaitsMessage(v1alpha1.ConditionSecretsReady, metav1.ConditionFalse, v1alpha1.ReasonSecretInvalid, x.part)
			}
			w.putBundle(kind, map[string]string{"ca.crt": string(ca.CertPEM())})
			w.rollOut("demo", "192.0.2.10")
			w.awaits("demo", status.CurrentStatus)
			var d appsv1.Deployment
			w.must(w.Get(t.Context(), w.key("demo"), &d))
			if !slices.ContainsFunc(d.Spec.Template.Spec.Volumes, func(v corev1.Volume) bool {
				return v.Secret != nil && v.Secret.SecretName == "client-ca" || v.ConfigMap != nil && v.ConfigMap.Name == "client-ca"
			}) {
				t.Errorf("volumes are %v", d.Spec.Template.Spec.Volumes)
			}
			policy := awaitsObject(w, "demo-policy", &corev1.ConfigMap{}).Data["policy.yaml"]
			config := awaitsObject(w, "demo-config", &corev1.ConfigMap{}).Data["cell.yaml"]
			if !strings.Contains(policy, "clientCertificates: required") || !strings.Contains(policy, "name: ops") || !strings.Contains(config, "clientCAFile: /etc/quicproquo/client-ca/ca.crt") {
				t.Errorf("policy\n%s\nconfiguration\n%s", policy, config)
			}

			before := w.quiet()
			w.touch("demo")
			if after := w.quiet(); after != before {
				t.Errorf("wrote %v", w.writes.since(before))
			}
			w.apply("demo", "{}")
			w.eventually("servers without it", func() error {
				w.must(w.Get(t.Context(), w.key("demo"), &d))
				if n := len(d.Spec.Template.Spec.Volumes); n != 5 {
					return fmt.Errorf("%d volumes", n)
				}
				return nil
			})
		})
	}
}

// putBundle writes what an admin would, as a Secret or ConfigMap without any
// label of ours, and has the operator look: a ConfigMap of others is not watched.
func (w *world) putBundle(kind string, data map[string]string) {
	w.Helper()
	if kind == "Secret" {
		w.putSecret("client-ca", data)
		return
	}
	w.eventually("the ConfigMap", func() error {
		var c corev1.ConfigMap
		if err := w.Get(w.Context(), w.key("client-ca"), &c); err != nil {
			return w.Create(w.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "client-ca", Namespace: w.ns}, Data: data})
		}
		c.Data = data
		return w.Update(w.Context(), &c)
	})
	w.touch("demo")
}

// The audit log is pruned daily by the image that the servers run, and not
// before there is a schema for it.
func TestAuditPruning(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply("demo", "{retention: {audit: 48h}}")
	w.runPostgres("demo")
	w.job("demo", w.images.Cell)
	w.quiet()
	w.must(w.gone(&batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "demo-audit-prune", Namespace: w.ns}}))
	w.migrate("demo", w.images.Cell)
	w.rollOut("demo", "192.0.2.10")
	w.awaits("demo", status.CurrentStatus)
	job := awaitsObject(w, "demo-audit-prune", &batchv1.CronJob{})
	pod := job.Spec.JobTemplate.Spec.Template.Spec
	if c := pod.Containers[0]; c.Image != w.images.Cell || strings.Join(c.Args, " ") != "audit prune --config /etc/quicproquo/config/cell.yaml" {
		t.Errorf("it runs %s %v", c.Image, c.Args)
	}
	// The API server judges its pods by the namespace's standard: restricted.
	w.must(w.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "pruning", Namespace: w.ns, Labels: job.Spec.JobTemplate.Spec.Template.Labels}, Spec: pod}))

	w.apply("demo", "{image: 'test/cell:v2'}")
	w.job("demo", "test/cell:v2")
	w.quiet()
	w.must(w.Get(t.Context(), w.key("demo-audit-prune"), job))
	if image := job.Spec.JobTemplate.Spec.Template.Spec.Containers[0].Image; image != w.images.Cell {
		t.Errorf("before the migration it is %s", image)
	}
	w.migrate("demo", "test/cell:v2")
	w.eventually("the new image", func() error {
		w.must(w.Get(t.Context(), w.key("demo-audit-prune"), job))
		if image := job.Spec.JobTemplate.Spec.Template.Spec.Containers[0].Image; image != "test/cell:v2" {
			return fmt.Errorf("it is %s", image)
		}
		return nil
	})
	if !slices.ContainsFunc(job.OwnerReferences, func(r metav1.OwnerReference) bool { return r.Kind == v1alpha1.Kind && r.Name == "demo" }) || job.Labels[resources.CellLabel] != "demo" {
		t.Errorf("it does not go with the cell: %v", job.OwnerReferences)
	}
}
