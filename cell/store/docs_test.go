package store

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The connections of docs/queues.md are those that a store opens at most.
func TestTheDocumentSaysTheConnections(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	var all int32
	for _, p := range s.pools() {
		all += p.Config().MaxConns
	}
	b, err := os.ReadFile("../../docs/queues.md")
	must(t, err)
	want := fmt.Sprintf("%d connections (%d for all, %d for commits, cursors and revocations, %d for locks, 1 for wake-ups; 1 listens besides)", all, defaultMaxConns, urgentConns, locksConns)
	if !strings.Contains(string(b), want) {
		t.Errorf("docs/queues.md does not say %q", want)
	}
}
