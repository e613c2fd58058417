//go:build e2e

package e2ekind

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// namespace is the operator's own, where it looks after cells.
const namespace = "quicproquo"

// began is when the tests began; progress is told relative to it.
var began = time.Now()

// say tells how far a test is.
func say(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("%5.1f s  "+format, append([]any{time.Since(began).Seconds()}, args...)...)
}

// kubectl runs kubectl in the namespace and returns what it prints.
func kubectl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "kubectl", append([]string{"--namespace", namespace}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// kube is kubectl that must succeed.
func kube(t *testing.T, args ...string) string {
	t.Helper()
	out, err := kubectl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// names lists objects of a kind by label selector, as NAME.
func names(t *testing.T, kind, selector string) []string {
	t.Helper()
	return strings.Fields(kube(t, "get", kind, "-l", selector, "-o", "jsonpath={.items[*].metadata.name}"))
}

// runningPods lists pods that run and are not being deleted.
func runningPods(t *testing.T, selector string) (list []string) {
	t.Helper()
	var pods struct {
		Items []struct {
			Metadata struct{ Name, DeletionTimestamp string } `json:"metadata"`
			Status   struct{ Phase string }                   `json:"status"`
		} `json:"items"`
	}
	if err := json.Unmarshal([]byte(kube(t, "get", "pods", "-l", selector, "-o", "json")), &pods); err != nil {
		t.Fatal(err)
	}
	for _, p := range pods.Items {
		if p.Metadata.DeletionTimestamp == "" && p.Status.Phase == "Running" {
			list = append(list, p.Metadata.Name)
		}
	}
	return list
}

// The labels of a cell's parts.
const (
	operatorPods = "app.kubernetes.io/name=quicproquo-operator"
	cellLabel    = "messaging.quicproquo.dev/cell"
)

// cell is the MessagingCell under test.
type cell struct {
	t    *testing.T
	name string
}

// status is what the tests use of a MessagingCell.
type status struct {
	Endpoint      string `json:"endpoint"`
	Pin           string `json:"pin"`
	Replicas      int    `json:"replicas"`
	ReadyReplicas int    `json:"readyReplicas"`
	Conditions    []struct {
		Type    string `json:"type"`
		Status  string `json:"status"`
		Reason  string `json:"reason"`
		Message string `json:"message"`
	} `json:"conditions"`
}

func (c cell) on(t *testing.T) cell { return cell{t, c.name} }

func (c cell) selector() string { return cellLabel + "=" + c.name }

func (c cell) pods() string { return c.selector() + ",app.kubernetes.io/component=server" }

func (c cell) status() (s status) {
	c.t.Helper()
	out := kube(c.t, "get", "messagingcell", c.name, "-o", "json")
	var object struct {
		Status status `json:"status"`
	}
	if err := json.Unmarshal([]byte(out), &object); err != nil {
		c.t.Fatal(err)
	}
	return object.Status
}

func (s status) ready() string {
	for _, c := range s.Conditions {
		if c.Type == "Ready" {
			return c.Status + " " + c.Reason + ": " + c.Message
		}
	}
	return "not looked at yet"
}

// apply applies the manifest of the cell.
func (c cell) apply() {
	c.t.Helper()
	kube(c.t, "apply", "--server-side", "--force-conflicts", "-f", *sampleFile)
}

// waitReady waits as an admin does, with kubectl wait, and tells what the cell
// says of itself meanwhile.
func (c cell) waitReady(atMost time.Duration) status {
	c.t.Helper()
	from, said := time.Now(), ""
	for {
		_, err := kubectl(c.t.Context(), "wait", "--for=condition=Ready", "--timeout=3s", "messagingcell/"+c.name)
		s := c.status()
		if err == nil {
			say(c.t, "%s is ready after %.1f s at %s, pin %s", c.name, time.Since(from).Seconds(), s.Endpoint, s.Pin)
			return s
		}
		if now := s.ready(); now != said {
			say(c.t, "%s: %s", c.name, now)
			said = now
		}
		if time.Since(from) > atMost {
			c.t.Fatalf("%s is not ready after %v: %s", c.name, atMost, said)
		}
	}
}

// waitReplicas waits for so many servers to serve.
func (c cell) waitReplicas(n int, atMost time.Duration) {
	c.t.Helper()
	from := time.Now()
	kube(c.t, "wait", fmt.Sprintf("--for=jsonpath={.status.readyReplicas}=%d", n), fmt.Sprintf("--timeout=%ds", int(atMost.Seconds())), "messagingcell/"+c.name)
	say(c.t, "%d servers serve after %.1f s", n, time.Since(from).Seconds())
}

// waitFor polls for what kubectl wait has no words for.
func waitFor(t *testing.T, what string, atMost time.Duration, done func() bool) {
	t.Helper()
	const often = 250 * time.Millisecond
	for from := time.Now(); !done(); time.Sleep(often) {
		if time.Since(from) > atMost {
			t.Fatalf("%s: not after %v", what, atMost)
		}
	}
}
