//go:build e2e

package e2ekind

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// kubectlQPQ runs kubectl-qpq on the cell and returns its standard output.
func (c cell) kubectlQPQ(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, *adminFile, append(args, "--namespace", namespace, "--cell", c.name)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl-qpq %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// anAdmin administers the cell with the tokens that the operator keeps, and has
// the audit log's daily Job run now.
func anAdmin(t *testing.T, w *world) {
	admin := func(args ...string) string {
		out, err := w.cell.kubectlQPQ(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out := admin("account", w.alice.name); !strings.Contains(out, "name     "+w.alice.name) || !strings.Contains(out, "device   ") {
		t.Errorf("the admin sees\n%s", out)
	}
	if _, err := w.cell.kubectlQPQ(t.Context(), "disable", w.alice.name, "--auditor"); err == nil || !strings.Contains(err.Error(), "is not for auditor") {
		t.Errorf("an auditor disables an account: %v", err)
	}
	admin("disable", w.alice.name)
	if _, f, ok := w.alice.try("read"); ok || f.Error.Code != "accountDisabled" {
		t.Errorf("a disabled account reads: %v, %+v", ok, f)
	}
	admin("enable", w.alice.name)
	waitFor(t, "she is let in again", time.Minute, func() bool {
		_, _, ok := w.alice.try("login", w.alice.name, "--cell", w.status.Endpoint, "--pin", w.status.Pin)
		return ok
	})
	w.alice.tell(w.bob, "I am here again")

	kube(t, "create", "job", "prune-now", "--from=cronjob/"+w.cell.name+"-audit-prune")
	defer func() { _, _ = kubectl(t.Context(), "delete", "job", "prune-now", "--wait=false") }()
	kube(t, "wait", "--for=condition=complete", "job/prune-now", "--timeout=120s")
	say(t, "the audit log's daily Job says: %s", kube(t, "logs", "job/prune-now"))
	waitFor(t, "the audit log has what the admin did", 3*time.Minute, func() bool {
		out, err := w.cell.kubectlQPQ(t.Context(), "audit", "export", "--auditor")
		return err == nil && strings.Contains(out, `"kind":"account.disabled"`)
	})
}
