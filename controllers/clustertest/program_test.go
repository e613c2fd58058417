package clustertest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"quicproquo.dev/api/v1alpha1"
)

// The program itself, with the rights of config/rbac: it takes the lease, tells
// that it is well, works, and gives the lease back when it is asked to stop.
func TestProgram(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stop()
	w.grant("operator-of-"+w.ns, "leader.yaml")
	dir := t.TempDir()
	kubeconfig, err := w.user.KubeConfig()
	w.must(err)
	w.must(os.WriteFile(filepath.Join(dir, "kubeconfig"), kubeconfig, 0o600))
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "operator"), "quicproquo.dev/cmd/operator")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	health := freeAddress(t)
	log, err := os.Create(filepath.Join(dir, "log"))
	w.must(err)
	defer log.Close()
	cmd := exec.Command(filepath.Join(dir, "operator"), "--kubeconfig="+filepath.Join(dir, "kubeconfig"), "--namespaces="+w.ns, "--home-namespace="+w.ns,
		"--leader-elect", "--health-address="+health, "--metrics-address=0", "--image-registry=mirror.example.org/qpq")
	cmd.Stderr = io.MultiWriter(log, &logged)
	w.must(cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("its log:\n%s", text)
		}
	})

	w.eventually("/readyz", func() error { return answers("http://" + health + "/readyz") })
	w.apply("demo", "{}")
	w.awaitsCondition("demo", v1alpha1.ConditionSecretsReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	w.runPostgres("demo")
	w.job("demo", "mirror.example.org/qpq/cell:dev")
	var lease coordinationv1.Lease
	w.must(w.Get(t.Context(), w.key("operator.messaging.quicproquo.dev"), &lease))

	w.must(cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(patience):
		t.Error("it does not end")
	}
	w.must(w.Get(t.Context(), w.key(lease.Name), &lease))
	if holder := lease.Spec.HolderIdentity; holder != nil && *holder != "" {
		t.Errorf("the lease is still held by %s", *holder)
	}
}

func answers(url string) error {
	response, err := http.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", response.Status)
	}
	return nil
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
