// Package secretflag keeps secrets off command lines, where every process of the machine reads them and shells keep them
// in their history.
package secretflag

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// looks matches names of flags that would hold a secret.
var looks = regexp.MustCompile(`(?i)pass|pwd|secret|token|credential|private|seed|auth|cookie|bearer|code|invit|recover|dsn|ur[il]|connection-?string|(^|-)(key|pw)s?$`)

// Looks reports whether a flag of that name would hold a secret.
func Looks(name string) bool { return looks.MatchString(name) }

// Hint says where a program takes a kind of secret from.
type Hint struct {
	Words string // Parts of flags' names, separated by spaces; empty: all others.
	Text  string
}

// Refuse has a program's commands answer flags that they do not have, and that look like a secret, with where to put it
// instead. wrap, which may be nil, makes the errors of all other flags the program's own.
func Refuse(root *cobra.Command, wrap func(error) error, hints ...Hint) {
	if wrap == nil {
		wrap = func(err error) error { return err }
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return wrap(explain(err, hints)) })
}

// explain never repeats what stood behind a flag.
func explain(err error, hints []Hint) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return err
	}
	name := unknown.GetSpecifiedName()
	if short := unknown.GetSpecifiedShortnames(); short != "" { // What follows may be its value.
		return fmt.Errorf("unknown flag: -%s", short[:1])
	}
	if !Looks(name) {
		return err
	}
	return fmt.Errorf("there is no flag --%s: secrets are not taken from the command line, where every process of the machine sees them; %s", name, hint(name, hints))
}

func hint(name string, hints []Hint) string {
	for _, h := range hints {
		words := strings.Fields(h.Words)
		for _, w := range words {
			if strings.Contains(strings.ToLower(name), w) {
				return h.Text
			}
		}
		if len(words) == 0 {
			return h.Text
		}
	}
	return "use a file or the environment"
}

// Suspects lists the flags, of a command and all below it, that look as if they held a secret, as "command --flag". Tests
// compare it with what is known to name a file or something public.
func Suspects(c *cobra.Command) []string {
	var list []string
	look := func(f *pflag.Flag) {
		if Looks(f.Name) && f.Value.Type() != "bool" {
			list = append(list, c.CommandPath()+" --"+f.Name)
		}
	}
	c.LocalFlags().VisitAll(look)
	for _, sub := range c.Commands() {
		list = append(list, Suspects(sub)...)
	}
	return list
}
