package clustertest

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"quicproquo.dev/controllers"
	"quicproquo.dev/internal/logging"
)

// leastSecret is how long what is looked for is at least: a shorter word stands in other texts too.
const leastSecret = 12

// pieces are the texts by which a Secret's value would be known in a log: its lines, whole and as base64.
func pieces(value []byte) []string {
	if strings.Contains(string(value), "BEGIN CERTIFICATE") && !strings.Contains(string(value), "PRIVATE KEY") {
		return nil // Public.
	}
	var list []string
	for line := range strings.Lines(string(value)) {
		for _, word := range strings.Fields(line) {
			if len(word) >= leastSecret && !strings.Contains(word, "-----") {
				list = append(list, word)
			}
		}
	}
	if len(value) >= leastSecret {
		encoded := base64.StdEncoding.EncodeToString(value)
		list = append(list, encoded[:min(len(encoded), 40)/4*4])
	}
	return list
}

// harmless are words of keys files that are no secret.
var harmless = []string{"quicproquo.dev/keys/v1", "oprfSeed:", "akePrivateKey:", "akePublicKey:", "previousOPAQUE:"}

// leaks says which Secrets' contents are in a log.
func leaks(log string, secrets []corev1.Secret) (found []string) {
	for i := range secrets {
		s := &secrets[i]
		for key, value := range s.Data {
			for _, piece := range pieces(value) {
				if !slices.Contains(harmless, piece) && strings.Contains(log, piece) {
					found = append(found, fmt.Sprintf("%s of Secret %s/%s", key, s.Namespace, s.Name))
					break
				}
			}
		}
	}
	if i := strings.Index(log, "PRIVATE KEY"); i >= 0 {
		found = append(found, "a private key: "+log[max(0, i-300):min(len(log), i+100)])
	}
	return found
}

// checkLogs looks for the contents of all Secrets in all that the operators of this process have logged.
func checkLogs() error {
	scheme, err := controllers.Scheme()
	if err != nil {
		return err
	}
	admin, err := client.New(cluster.admin, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var all corev1.SecretList
	if err := admin.List(ctx, &all); err != nil {
		return err
	}
	if found := leaks(logged.String(), all.Items); len(found) > 0 {
		return fmt.Errorf("the operators have logged %s", strings.Join(found, ", "))
	}
	return nil
}

// reportLeaks is checkLogs as an exit code.
func reportLeaks() int {
	if err := checkLogs(); err != nil {
		fmt.Fprintln(os.Stderr, "clustertest:", err)
		return 1
	}
	return 0
}

// What an operator makes goes into Secrets and nowhere else; and what would be found if it did go into the log.
func TestTheLogsHoldNoSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply("demo", "{}")
	var all corev1.SecretList
	w.eventually("the Secrets", func() error {
		if err := w.List(t.Context(), &all, client.InNamespace(w.ns)); err != nil {
			return err
		}
		if len(all.Items) < 3 {
			return fmt.Errorf("%d Secrets", len(all.Items))
		}
		return nil
	})
	if found := leaks(logged.String(), all.Items); len(found) > 0 {
		t.Errorf("logged: %q", found)
	}
	if !strings.Contains(logged.String(), w.ns) {
		t.Error("the log is not the operator's")
	}
	for i := range all.Items {
		for key, value := range all.Items[i].Data {
			for _, piece := range pieces(value) {
				if !slices.Contains(harmless, piece) && len(leaks("something "+piece+" else", all.Items)) == 0 {
					t.Errorf("nobody would see %s of %s", key, all.Items[i].Name)
				}
			}
		}
		// Its own logger stops a Secret as a whole, however it is handed on.
		var out strings.Builder
		logging.New(&out, logging.Options{Level: slog.LevelDebug, Open: true}).Error("planted", "secret", &all.Items[i], "object", all.Items[i], "data", all.Items[i].Data)
		if found := leaks(out.String(), all.Items); len(found) > 0 {
			t.Errorf("%q: %s", found, out.String())
		}
	}
}
