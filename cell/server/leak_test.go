package server_test

import (
	"fmt"
	"strings"
	"testing"

	"quicproquo.dev/cell/server/celltest"
)

// failing is a test whose failures are wanted.
type failing struct {
	*testing.T
	errors []string
}

func (f *failing) Errorf(format string, args ...any) {
	f.errors = append(f.errors, fmt.Sprintf(format, args...))
}

// Every test of a whole cell ends with a look at its log: what it sent and was sent is not there. That this look sees
// something is shown by logs into which somebody's name, an access token and an address got.
func TestEveryTestLooksForLeaks(t *testing.T) {
	t.Parallel()
	for what, leak := range map[string]func(*celltest.Cell, *celltest.Person) string{
		"nothing":    func(*celltest.Cell, *celltest.Person) string { return "nothing" },
		"the name":   func(*celltest.Cell, *celltest.Person) string { return "wilhelmina" },
		"a token":    func(_ *celltest.Cell, p *celltest.Person) string { return fmt.Sprintf("%x", p.Session.AccessToken) },
		"a password": func(_ *celltest.Cell, p *celltest.Person) string { return p.Password },
		"an address": func(_ *celltest.Cell, p *celltest.Person) string { return p.Conn.QUIC.LocalAddr().String() },
	} {
		f := &failing{}
		t.Run(what, func(t *testing.T) {
			f.T = t
			c := celltest.New(f)
			p := c.Signup(f, "wilhelmina")
			fmt.Fprintln(c.Log, leak(c, p))
		})
		if found := strings.Join(f.errors, "\n"); (found == "") != (what == "nothing") {
			t.Errorf("%s in the log: %q", what, found)
		}
	}
}
