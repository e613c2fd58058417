package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"rsc.io/qr"

	"quicproquo.dev/client"
	"quicproquo.dev/schema/ids"
)

const shortID = 8 // Characters of an id that tell an account's devices apart.

func (p *program) devicesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "List the account's devices; add, approve, rename or revoke one",
		Args:  noArgs("there is no command devices %q; qpq devices --help lists them"),
		RunE:  func(cmd *cobra.Command, _ []string) error { return p.devices(cmd.Context()) },
	}
	cmd.AddCommand(p.devicesAddCommand(), p.devicesApproveCommand(), p.devicesRenameCommand(), p.devicesRevokeCommand())
	return cmd
}

func (p *program) devicesAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Add this device to an account: prints a code, for another device of the account to approve",
		Long: `Run this on the new device, with an empty profile. It prints a code, also as a QR
code, and waits. On a device that the account has, run

  qpq devices approve CODE

within ten minutes. Give the account's passphrase: it protects the profile here too.`,
		Args: noArgs("devices add takes no argument such as %q"),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.addDevice(cmd.Context()) },
	}
	p.deviceNameFlag(cmd)
	return cmd
}

func (p *program) devicesApproveCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "approve CODE",
		Short: "Take a new device into the account, by the code that it shows",
		Args:  exactly(1, "give the code that the new device shows: qpq devices approve CODE"),
		RunE:  func(cmd *cobra.Command, args []string) error { return p.approveDevice(cmd.Context(), args[0], yes) },
	}
	yesFlag(cmd, &yes)
	return cmd
}

func yesFlag(cmd *cobra.Command, yes *bool) {
	cmd.Flags().BoolVarP(yes, "yes", "y", false, "do not ask whether it is meant")
}

func (p *program) devicesRenameCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rename ID NAME",
		Short: "Give a device another name",
		Args:  exactly(2, "give the device's id, or the beginning of it, and a name: qpq devices rename ID NAME"),
		RunE:  func(cmd *cobra.Command, args []string) error { return p.renameDevice(cmd.Context(), args[0], args[1]) },
	}
}

func (p *program) devicesRevokeCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "revoke ID",
		Short: "End a device for good: one that was lost, or is not used any more",
		Args:  exactly(1, "give the device's id, or the beginning of it: qpq devices revoke ID"),
		RunE:  func(cmd *cobra.Command, args []string) error { return p.revokeDevice(cmd.Context(), args[0], yes) },
	}
	yesFlag(cmd, &yes)
	return cmd
}

// deviceJSON is a device as --json prints it.
type deviceJSON struct {
	ID        ids.ID `json:"id"`
	Name      string `json:"name"`
	Added     string `json:"added"`
	Seen      string `json:"seen,omitempty"` // The day.
	This      bool   `json:"this"`
	Certified bool   `json:"certified"`
}

func (p *program) devices(ctx context.Context) error {
	c, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := c.Devices(ctx)
	if err != nil {
		return err
	}
	for _, d := range list {
		if err := p.printDevice(d); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) printDevice(d client.Device) error {
	object := deviceJSON{ID: d.ID, Name: d.Name, Added: d.AddedAt.UTC().Format(timeJSON), This: d.This, Certified: d.Certified}
	seen := "never seen"
	if !d.SeenOn.IsZero() {
		object.Seen = d.SeenOn.UTC().Format(time.DateOnly)
		seen = "seen " + object.Seen
	}
	line := fmt.Sprintf("%s  %s  added %s, %s", short(d.ID), visible(d.Name), d.AddedAt.Local().Format(time.DateOnly), seen)
	if d.This {
		line += "  (this device)"
	}
	if !d.Certified {
		line += "  WARNING: the account's key does not vouch for it; nobody will write to it"
	}
	return p.print(object, line)
}

func short(id ids.ID) string { return id.String()[:shortID] }

// deviceOf finds a device of the account by the beginning of its id.
func deviceOf(ctx context.Context, c *client.Client, prefix string) (client.Device, error) {
	list, err := c.Devices(ctx)
	if err != nil {
		return client.Device{}, err
	}
	var found []client.Device
	for _, d := range list {
		if prefix != "" && strings.HasPrefix(d.ID.String(), strings.ToLower(prefix)) {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return client.Device{}, usageError(fmt.Sprintf("the account has no device whose id begins with %q; qpq devices lists them", prefix))
	case 1:
		return found[0], nil
	}
	return client.Device{}, usageError(fmt.Sprintf("%d devices have ids that begin with %q; give more of it", len(found), prefix))
}

func (p *program) renameDevice(ctx context.Context, prefix, name string) error {
	c, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	d, err := deviceOf(ctx, c, prefix)
	if err != nil {
		return err
	}
	if err := c.RenameDevice(ctx, d.ID, name); err != nil {
		return err
	}
	return p.print(struct {
		ID   ids.ID `json:"id"`
		Name string `json:"name"`
	}{d.ID, name}, fmt.Sprintf("%s is called %s now", short(d.ID), visible(name)))
}

func (p *program) revokeDevice(ctx context.Context, prefix string, yes bool) error {
	c, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	d, err := deviceOf(ctx, c, prefix)
	if err != nil {
		return err
	}
	question := fmt.Sprintf("Revoke %s (%s) for good?", visible(d.Name), short(d.ID))
	if d.This {
		question = "Revoke this very device for good? It keeps what it has received, and receives nothing more."
	}
	if err := p.confirm(question, yes); err != nil {
		return err
	}
	if err := c.RevokeDevice(ctx, d.ID); err != nil {
		return err
	}
	return p.print(struct {
		ID      ids.ID `json:"id"`
		Revoked bool   `json:"revoked"`
	}{d.ID, true}, fmt.Sprintf("%s (%s) is revoked; your contacts are told", visible(d.Name), short(d.ID)))
}

// errNotMeant says that somebody was asked, and did not say yes.
var errNotMeant = errors.New("nothing was done")

// confirm asks a question that is answered by yes.
func (p *program) confirm(question string, yes bool) error {
	if yes {
		return nil
	}
	answer, err := p.ask(question + " Type yes: ")
	if err != nil {
		return usageError("there is no terminal to confirm it on: add --yes")
	}
	if strings.TrimSpace(strings.ToLower(string(answer))) != "yes" {
		return errNotMeant
	}
	return nil
}

func (p *program) approveDevice(ctx context.Context, code string, yes bool) error {
	c, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	q, err := c.FindLink(ctx, code)
	if err != nil {
		return err
	}
	err = p.confirm(fmt.Sprintf("Add the device %s (%s) to the account %s? It will read and write as you.", visible(q.Name), short(q.DeviceID), visible(c.Whoami().Name)), yes)
	if err != nil {
		return err
	}
	if err := c.ApproveLink(ctx, q); err != nil {
		return err
	}
	return p.print(struct {
		ID       ids.ID `json:"id"`
		Name     string `json:"name"`
		Approved bool   `json:"approved"`
	}{q.DeviceID, q.Name, true}, fmt.Sprintf("%s (%s) is approved, and adds itself now", visible(q.Name), short(q.DeviceID)))
}

func (p *program) addDevice(ctx context.Context) error {
	o, err := p.options(true)
	if err != nil {
		return err
	}
	defer clear(o.Passphrase)
	l, err := client.StartLink(ctx, o)
	if err != nil {
		return err
	}
	err = p.print(struct {
		Code    string `json:"code"`
		QR      string `json:"qr"`
		Expires string `json:"expiresAt"`
	}{l.Code(), l.QR(), l.ExpiresAt().UTC().Format(timeJSON)}, p.drawn(l.QR())+fmt.Sprintf("On a device that the account has, run within %d minutes:\n\n  qpq devices approve %s\n",
		max(1, int(time.Until(l.ExpiresAt()).Round(time.Minute)/time.Minute)), l.Code()))
	if err != nil {
		return err
	}
	c, err := l.Wait(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	me := c.Whoami()
	return p.print(identity{Name: me.Name, Account: me.AccountID, Device: me.DeviceID, Cell: me.Endpoint},
		fmt.Sprintf("ready as %s (account %s, device %s) at %s", visible(me.Name), me.AccountID, me.DeviceID, visible(me.Endpoint)))
}

// drawn is a QR code for a terminal; anywhere else it is empty.
func (p *program) drawn(text string) string {
	if !isTerminal(p.stdout) {
		return ""
	}
	return draw(text)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// draw writes two rows of a QR code as one line of half blocks, white on black whatever the terminal's colors, with the
// margin of four that readers need (ISO/IEC 18004 §5.3.8). What cannot be encoded is not drawn.
func draw(text string) string {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return ""
	}
	const margin = 4
	halves := map[[2]bool]string{{true, true}: " ", {true, false}: "▄", {false, true}: "▀", {false, false}: "█"} // Dark above, dark below.
	var b strings.Builder
	for y := -margin; y < code.Size+margin; y += 2 {
		b.WriteString("\x1b[40;97m")
		for x := -margin; x < code.Size+margin; x++ {
			b.WriteString(halves[[2]bool{code.Black(x, y), code.Black(x, y+1)}])
		}
		b.WriteString("\x1b[0m\n")
	}
	return b.String() + "\n"
}
