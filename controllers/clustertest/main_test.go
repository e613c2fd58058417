package clustertest

import (
	"bytes"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"quicproquo.dev/config/crd"
	"quicproquo.dev/internal/logging"
)

// cluster is the API server of this test process.
var cluster struct {
	env   *envtest.Environment
	admin *rest.Config
	users sync.Mutex // Held while one is added.
}

// logged is what all operators have logged.
var logged lockedBuffer

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.FromSlogHandler(logging.New(&logged, logging.Options{Level: slog.LevelDebug - 8, Open: true}).Handler()))
	flag.Parse()
	_ = flag.Set("test.parallel", "8") // They wait more than they work.
	stop, err := startCluster()
	if err != nil {
		fmt.Fprintf(os.Stderr, "clustertest: no API server to test against: %v\n"+
			"set KUBEBUILDER_ASSETS to a directory with kube-apiserver, etcd and kubectl, or see what hack/cluster/envtest-assets.sh says\n", err)
		os.Exit(1)
	}
	code := m.Run()
	code = max(code, reportLeaks())
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, "clustertest: stopping the API server:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func startCluster() (stop func() error, err error) {
	dir, err := assets()
	if err != nil {
		return nil, err
	}
	var definition apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(crd.MessagingCell, &definition); err != nil {
		return nil, err
	}
	cluster.env = &envtest.Environment{
		BinaryAssetsDirectory:    dir,
		CRDs:                     []*apiextensionsv1.CustomResourceDefinition{&definition},
		ControlPlaneStartTimeout: 2 * time.Minute,
		ControlPlaneStopTimeout:  time.Minute,
	}
	if cluster.admin, err = cluster.env.Start(); err != nil {
		_ = cluster.env.Stop() // The first error tells more.
		return nil, err
	}
	return cluster.env.Stop, nil
}

// assets returns the directory with the API server's programs.
func assets() (string, error) {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" {
		return dir, nil
	}
	script, err := filepath.Abs("../../hack/cluster/envtest-assets.sh")
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	cmd := exec.Command(script)
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w", script, err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	return lines[len(lines)-1], nil
}
