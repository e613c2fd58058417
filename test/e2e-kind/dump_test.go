//go:build e2e

package e2ekind

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// dumps are what is kept of a cluster in which a test failed. Secrets are
// listed by name alone.
var dumps = map[string][]string{
	"objects.yaml": {"get", "messagingcells,deployments,replicasets,statefulsets,jobs,pods,services,endpointslices,poddisruptionbudgets,persistentvolumeclaims,configmaps,serviceaccounts", "-o", "yaml"},
	"objects.txt":  {"get", "messagingcells,all,pdb,pvc,configmaps,secrets,serviceaccounts,leases", "-o", "wide"},
	"pods.txt":     {"describe", "pods"},
	"events.txt":   {"get", "events", "--sort-by=.lastTimestamp", "-o", "wide"},
	"nodes.txt":    {"describe", "nodes"},
	"system.txt":   {"get", "pods,events", "--all-namespaces", "-o", "wide"},
}

// dumpIfFailed keeps objects, events and logs when the test has failed, and
// shows what mostly tells why.
func dumpIfFailed(t *testing.T) {
	if !t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := os.MkdirAll(*reportDir, 0o755); err != nil {
		t.Error(err)
		return
	}
	keep := func(name string, args ...string) string {
		out, err := kubectl(ctx, args...)
		if err != nil {
			out += "\n" + err.Error()
		}
		if err := os.WriteFile(filepath.Join(*reportDir, name), []byte(out+"\n"), 0o600); err != nil {
			t.Error(err)
		}
		return out
	}
	for name, args := range dumps {
		keep(name, args...)
	}
	pods, err := kubectl(ctx, "get", "pods", "-o", "jsonpath={.items[*].metadata.name}")
	if err != nil {
		t.Error(err)
	}
	for _, pod := range strings.Fields(pods) {
		log := keep(pod+".log", "logs", pod, "--all-containers", "--timestamps")
		keep(pod+".previous.log", "logs", pod, "--all-containers", "--timestamps", "--previous")
		t.Logf("the last lines of %s:\n%s", pod, lastLines(log, 15))
	}
	t.Logf("conditions:\n%s", keep("cells.yaml", "get", "messagingcells", "-o", "jsonpath={range .items[*]}{.metadata.name}: {.status}{\"\\n\"}{end}"))
	t.Logf("the last events:\n%s", lastLines(keep("events-short.txt", "get", "events", "--sort-by=.lastTimestamp"), 25))
	t.Logf("more is in %s", *reportDir)
}

func lastLines(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
