package docs_test

import (
	"strings"
	"testing"

	"quicproquo.dev/cell/audit"
)

func TestAuditExplainsEveryKind(t *testing.T) {
	t.Parallel()
	text := read(t, "audit.md")
	_, kinds, ok := strings.Cut(text, "\n## Kinds\n")
	if !ok {
		t.Fatal("audit.md has no section Kinds")
	}
	names := audit.KindNames()
	for _, name := range names {
		if !strings.Contains(kinds, "`"+name+"`") {
			t.Errorf("%s is not explained", name)
		}
	}
	if len(names) < 40 || !strings.Contains(text, "`"+audit.Format+"`") {
		t.Errorf("%d kinds; the format is %s", len(names), audit.Format)
	}
}
