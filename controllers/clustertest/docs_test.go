package clustertest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"quicproquo.dev/controllers/resources"
)

// documented returns the commands of docs/storage.md after a comment.
func documented(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/storage.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)<!-- commands: " + name + " -->\n```sh\n(.*?)```").FindSubmatch(text)
	if m == nil {
		t.Fatalf("docs/storage.md has no commands for %s", name)
	}
	return string(m[1])
}

// What the documents have an admin type makes a Job that an API server takes,
// with pods that its namespace lets in, and that the operator leaves alone.
func TestScrubJobOfTheDocuments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bringUp("demo", "{}")
	path, err := assets()
	w.must(err)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	w.must(os.WriteFile(kubeconfig, cluster.env.KubeConfig, 0o600))
	script := strings.ReplaceAll(documented(t, "scrub"), "--namespace chat", "--namespace "+w.ns)
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "PATH="+path+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	var job batchv1.Job
	w.must(w.Get(t.Context(), w.key("demo-scrub"), &job))
	pod := job.Spec.Template.Spec
	c := pod.Containers[0]
	if !slices.Equal(c.Args[:3], []string{"scrub", "--config", "/etc/quicproquo/config/cell.yaml"}) || c.Image != images.Cell || *job.Spec.BackoffLimit != 0 || len(job.OwnerReferences) > 0 {
		t.Errorf("the Job is %+v", job)
	}
	w.must(w.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "scrub", Namespace: w.ns}, Spec: pod}, client.DryRunAll))
	w.touch("demo")
	w.quiet()
	w.must(w.Get(t.Context(), w.key("demo-scrub"), &job))
	if job.DeletionTimestamp != nil || job.Labels[resources.CellLabel] != "demo" {
		t.Errorf("the Job is %+v", job.ObjectMeta)
	}
}
