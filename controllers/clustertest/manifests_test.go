package clustertest

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers"
)

// kustomize renders a folder of config as `kubectl apply -k` does.
func kustomize(t *testing.T, dir string) []*unstructured.Unstructured {
	t.Helper()
	path, err := assets()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd := exec.Command(filepath.Join(path, "kubectl"), "kustomize", "../../config/"+dir)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	var objects []*unstructured.Unstructured
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(out), 4096)
	for {
		object := &unstructured.Unstructured{}
		if decoder.Decode(object) != nil {
			return objects
		}
		objects = append(objects, object)
	}
}

// An API server takes the installation as it stands, strictly, and lets the
// operator's pod into its restricted namespace. Nobody is given anything for
// the whole cluster.
func TestInstallation(t *testing.T) {
	t.Parallel()
	scheme, err := controllers.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := client.New(cluster.admin, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, Client: admin, ns: "quicproquo"}
	kinds := map[string]int{}
	for _, object := range append(kustomize(t, "default"), kustomize(t, "samples")...) {
		kinds[object.GetKind()]++
		if object.GetKind() == v1alpha1.Kind {
			object.SetNamespace(w.ns)
		}
		w.must(w.Client.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("kubectl"), client.ForceOwnership))
	}
	if kinds["ClusterRole"]+kinds["ClusterRoleBinding"] > 0 || kinds["Role"] != 2 || kinds["Deployment"] != 1 || kinds[v1alpha1.Kind] != 1 {
		t.Errorf("there are %v", kinds)
	}
	var d appsv1.Deployment
	w.must(w.Get(t.Context(), w.key("quicproquo-operator"), &d))
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "operator-0", Namespace: w.ns, Labels: d.Spec.Template.Labels}, Spec: d.Spec.Template.Spec}
	w.must(w.Create(t.Context(), pod, client.DryRunAll))
	var binding rbacv1.RoleBinding
	w.must(w.Get(t.Context(), w.key("operator"), &binding))
	w.must(w.Get(t.Context(), w.key(binding.RoleRef.Name), &rbacv1.Role{}))
	if s := binding.Subjects[0]; s.Name != d.Spec.Template.Spec.ServiceAccountName || s.Namespace != w.ns {
		t.Errorf("the rights go to %+v", s)
	}
}

// The rights in another namespace go to the operator where it is.
func TestTenantNamespace(t *testing.T) {
	t.Parallel()
	for _, object := range kustomize(t, "rbac/tenant") {
		if object.GetNamespace() != "team-chat" {
			t.Errorf("%s %s is in namespace %s", object.GetKind(), object.GetName(), object.GetNamespace())
		}
		if subjects, ok, _ := unstructured.NestedSlice(object.Object, "subjects"); ok {
			if subject, _ := subjects[0].(map[string]any); subject["namespace"] != "quicproquo" {
				t.Errorf("the rights go to %v", subject)
			}
		}
	}
}
