package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"quicproquo.dev/client"
)

func (p *program) accountCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "account",
		Short: "Delete the account, or write down what the cell has about it",
		Args:  noArgs("there is no command account %q; qpq account --help lists them"),
		RunE: func(*cobra.Command, []string) error {
			return usageError("give a command: qpq account delete, or qpq account export FILE")
		},
	}
	cmd.AddCommand(p.accountDeleteCommand(), p.accountExportCommand())
	return cmd
}

func (p *program) accountDeleteCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "delete",
		Short: "Delete the account at its cell, for good, and this profile with its conversations",
		Long: `Delete the account at its cell, for good, and this profile with all conversations
in it. Other devices of the account are logged out; their profiles stay. Contacts
are told, and keep what they have. The account's name is free from then on.

It asks for the passphrase, and for the name to be typed. When it is cut short, run
it again.`,
		Args: noArgs("account delete takes no argument such as %q"),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.deleteAccount(cmd.Context(), name) },
	}
	cmd.Flags().StringVar(&name, "yes", "", "the account's `NAME`, typed here where there is no terminal to ask on")
	return cmd
}

func (p *program) accountExportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export FILE",
		Short: "Write what the cell has about the account into a new file, as lines of JSON",
		Long: `Write what the cell has about the account into a new file, one JSON object a line;
FILE - is standard output. The conversations are not in it: the cell cannot read
them.`,
		Args: exactly(1, "name a file that is not there yet, or -: qpq account export FILE"),
		RunE: func(cmd *cobra.Command, args []string) error { return p.exportAccount(cmd.Context(), args[0]) },
	}
}

func (p *program) deleteAccount(ctx context.Context, name string) error {
	o, err := p.options(false)
	if err != nil {
		return err
	}
	defer clear(o.Passphrase)
	if name == "" {
		answer, err := p.ask("This cannot be undone. Type the account's name to delete it: ")
		if err != nil {
			return usageError("there is no terminal to type the account's name on: add --yes NAME")
		}
		name = strings.TrimSpace(string(answer))
	}
	if err := client.DeleteAccount(ctx, o, name); err != nil {
		return err
	}
	return p.print(struct {
		Name    string `json:"name"`
		Deleted bool   `json:"deleted"`
	}{name, true}, "the account "+visible(name)+" is deleted, and so is this profile")
}

func (p *program) exportAccount(ctx context.Context, path string) error {
	c, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if path == "-" {
		_, err := c.ExportAccount(ctx, p.stdout)
		return err
	}
	lines, err := toNewFile(path, func(w io.Writer) (int, error) { return c.ExportAccount(ctx, w) })
	if err != nil {
		return err
	}
	return p.print(struct {
		File  string `json:"file"`
		Lines int    `json:"lines"`
	}{path, lines}, fmt.Sprintf("%d lines are in %s", lines, visible(path)))
}

// toNewFile has a file written that only its owner reads. One that could not be written to its end is removed.
func toNewFile(path string, write func(io.Writer) (int, error)) (n int, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return 0, usageError(path + " is there already: name a new file")
	}
	if err != nil {
		return 0, usageError("making the file: " + err.Error())
	}
	n, err = write(f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return 0, errors.Join(err, os.Remove(path))
	}
	return n, nil
}
