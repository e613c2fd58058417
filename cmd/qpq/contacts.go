package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"quicproquo.dev/client"
	"quicproquo.dev/schema/ids"
)

func (p *program) contactsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "contacts",
		Short: "List who may write to you and who has asked to; accept or block",
		Args:  noArgs("contacts knows list, accept NAME, block NAME and unblock NAME, not %q"),
		RunE:  func(cmd *cobra.Command, _ []string) error { return p.listContacts(cmd.Context()) },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "list",
		Short: "List contacts, requests and blocks",
		Args:  noArgs("contacts list takes no argument such as %q"),
		RunE:  func(cmd *cobra.Command, _ []string) error { return p.listContacts(cmd.Context()) },
	})
	for _, x := range []struct {
		verb, short, done string
		do                func(*client.Client, context.Context, string) error
	}{
		{"accept", "Let an account write to you that has asked to", "accepted", (*client.Client).AcceptContact},
		{"block", "Keep an account from writing to you", "blocked", func(c *client.Client, ctx context.Context, name string) error {
			return c.BlockContact(ctx, name, true)
		}},
		{"unblock", "Take a block back", "unblocked", func(c *client.Client, ctx context.Context, name string) error {
			return c.BlockContact(ctx, name, false)
		}},
	} {
		cmd.AddCommand(&cobra.Command{
			Use:   x.verb + " NAME",
			Short: x.short,
			Args:  exactly(1, "give an account's name: qpq contacts "+x.verb+" NAME"),
			RunE: func(cmd *cobra.Command, args []string) error {
				return p.contact(cmd.Context(), args[0], x.done, x.do)
			},
		})
	}
	return cmd
}

// contactJSON is what contacts prints.
type contactJSON struct {
	Name    string `json:"name"`
	Account ids.ID `json:"account"`
	State   string `json:"state"`
	Since   string `json:"since"`
}

func (p *program) listContacts(ctx context.Context) error {
	c, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := c.Contacts(ctx)
	if err != nil {
		return err
	}
	for _, x := range list {
		line := fmt.Sprintf("%-9s  %s  since %s", x.State, visible(x.Name), x.Since.Local().Format(time.DateTime))
		if err := p.print(contactJSON{x.Name, x.Account, string(x.State), x.Since.UTC().Format(timeJSON)}, line); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) contact(ctx context.Context, name, done string, do func(*client.Client, context.Context, string) error) error {
	c, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := do(c, ctx, name); err != nil {
		return err
	}
	return p.print(struct {
		Name  string `json:"name"`
		State string `json:"state"`
	}{name, done}, done+" "+visible(name))
}

// printPending says that a message waits for its receiver.
func (p *program) printPending(e *client.PendingError) error {
	return p.print(struct {
		Pending bool   `json:"pending"`
		To      string `json:"to"`
	}{true, e.Name}, "pending: "+visible(e.Error()))
}
