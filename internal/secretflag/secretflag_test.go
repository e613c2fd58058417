package secretflag

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

const secret = "hunter2"

func program() *cobra.Command {
	root := &cobra.Command{Use: "program", SilenceErrors: true, SilenceUsage: true}
	sub := &cobra.Command{Use: "sub", RunE: func(*cobra.Command, []string) error { return nil }}
	sub.Flags().String("public-key", "", "")
	sub.Flags().Bool("recovery-codes", false, "")
	sub.Flags().StringP("file", "f", "", "")
	sub.Flags().Int("count", 0, "")
	root.AddCommand(sub)
	Refuse(root, nil, Hint{"pass", "set THE_PASSPHRASE"}, Hint{"uri url dsn", "set THE_DATABASE"}, Hint{"", "use a file"})
	root.SetOut(io.Discard)
	root.SetErr(io.Discard)
	return root
}

func TestSecretsAreRefused(t *testing.T) {
	t.Parallel()
	for flag, want := range map[string]string{
		"--password=" + secret: "set THE_PASSPHRASE", "--passphrase " + secret: "set THE_PASSPHRASE", "--database-uri=" + secret: "set THE_DATABASE",
		"--token=" + secret: "use a file", "--Secret=" + secret: "use a file", "--private-key=" + secret: "use a file", "--keys=" + secret: "use a file",
		"--invite=" + secret: "use a file", "--code " + secret: "use a file", "-p" + secret: "unknown flag: -p", "-p " + secret: "unknown flag: -p",
		"--nonsense=" + secret: "unknown flag: --nonsense", "--monkey=" + secret: "unknown flag: --monkey",
	} {
		for _, before := range []string{"sub ", "sub --count=1 ", ""} {
			root := program()
			root.SetArgs(strings.Fields(before + flag))
			err := root.Execute()
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
				t.Errorf("%s%s: %v, want %q", before, flag, err, want)
			}
		}
	}
	root := program()
	root.SetArgs([]string{"sub", "--public-key=x", "-f", "y"})
	if err := root.Execute(); err != nil {
		t.Error(err)
	}
}

func TestErrorsAreWrapped(t *testing.T) {
	t.Parallel()
	root := program()
	Refuse(root, func(err error) error { return fmt.Errorf("usage: %w", err) })
	for _, args := range [][]string{{"sub", "--token=x"}, {"sub", "--count=x"}} {
		root.SetArgs(args)
		if err := root.Execute(); err == nil || !strings.HasPrefix(err.Error(), "usage: ") {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestSuspects(t *testing.T) {
	t.Parallel()
	if got := Suspects(program()); !slices.Equal(got, []string{"program sub --public-key"}) {
		t.Errorf("%q", got)
	}
}
