package session

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The bounds of a connection in docs/queues.md are the code's.
func TestTheDocumentSaysTheBounds(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/queues.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		fmt.Sprintf("| 1,%03d; %d of them wait for the database; %d large frames |", inFlight-1000, concurrentCalls, largeIn),
		fmt.Sprintf("| %d MiB; %d large frames |", highWater>>20, largeOut),
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("docs/queues.md does not say %q", want)
		}
	}
}
