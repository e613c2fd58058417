package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Commands returns the verbs.
func Commands() []*cobra.Command {
	return []*cobra.Command{inviteCommand(), accountCommand(), disableCommand(true), disableCommand(false), revokeDeviceCommand(),
		endSessionsCommand(), resetCodeCommand(), deleteAccountCommand(), auditCommand()}
}

const help = `

The cell is found in the cluster of your kubeconfig (--cell, -n), or is one that
kubectl-qpq dev serves (--connection FILE). You are its admin by the token that
the operator keeps in Secret <cell>-admin, which takes the right to read it, or
by a client certificate that the cell's access.admins names (--client-cert and
--client-key). The cell records what you do in its audit log.`

// verb makes a command that asks something of a cell.
func verb(use, short, long string, args cobra.PositionalArgs, run func(c *cobra.Command, s *session, args []string) error) *cobra.Command {
	var f flags
	c := &cobra.Command{Use: use, Short: short, Long: short + ".\n\n" + long + help, Args: args,
		RunE: func(c *cobra.Command, args []string) error {
			s, err := f.open(c.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			return run(c, s, args)
		}}
	f.add(c.Flags())
	return c
}

func exactly(n int, message string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return errors.New(message)
		}
		return nil
	}
}

// jsonFlag has a command print an object in the place of text.
func jsonFlag(c *cobra.Command) *bool {
	return c.Flags().Bool("json", false, "print JSON")
}

func printJSON(w io.Writer, object any) error {
	b, err := json.MarshalIndent(object, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, string(b))
	return err
}

func inviteCommand() *cobra.Command {
	var count uint16
	var life time.Duration
	var asJSON *bool
	c := verb("invite", "Mint invitations, for a cell whose signup is by invitation", `Each makes one account: QPQ_CODE=CODE qpq signup NAME, or qpq signup NAME, which
asks for it. They are told once and stored nowhere: give each to one person, by
a way that nobody else reads.`, exactly(0, "invite takes no argument; --count N mints several"), func(c *cobra.Command, s *session, _ []string) error {
		out, err := call[*wire.Codes](c.Context(), s, &wire.AdminInviteRequest{Count: count, Lifetime: life})
		if err != nil {
			return err
		}
		return printCodes(c, out, *asJSON, "good for one account each, until %s: qpq signup NAME asks for it\n")
	})
	c.Flags().Uint16Var(&count, "count", 1, "how many, 1 to 100")
	c.Flags().DurationVar(&life, "for", 72*time.Hour, "how long they can be used, 1m to 8760h")
	asJSON = jsonFlag(c)
	return c
}

// printCodes prints codes alone to standard output, so that they can be piped.
func printCodes(c *cobra.Command, out *wire.Codes, asJSON bool, note string) error {
	if asJSON {
		return printJSON(c.OutOrStdout(), struct {
			Codes     []string  `json:"codes"`
			ExpiresAt time.Time `json:"expiresAt"`
		}{out.Codes, out.ExpiresAt.UTC()})
	}
	fmt.Fprintf(c.ErrOrStderr(), note, out.ExpiresAt.Local().Format(time.DateTime))
	_, err := fmt.Fprintln(c.OutOrStdout(), strings.Join(out.Codes, "\n"))
	return err
}

func resetCodeCommand() *cobra.Command {
	var life time.Duration
	var asJSON *bool
	c := verb("reset-code NAME", "Mint a code by which an account starts over", `For a person who has lost passphrase, recovery codes and devices. The account
keeps its name and gets a new identity, which its contacts are warned of; what
was sent to it cannot be read. Be sure that the person is who they say they are.`,
		exactly(1, "give the account's name: kubectl-qpq reset-code NAME"), func(c *cobra.Command, s *session, args []string) error {
			out, err := call[*wire.Codes](c.Context(), s, &wire.AdminResetCodeRequest{Name: args[0], Lifetime: life})
			if err != nil {
				return err
			}
			return printCodes(c, out, *asJSON, "good once, until %s: qpq reset NAME asks for it\n")
		})
	c.Flags().DurationVar(&life, "for", 24*time.Hour, "how long it can be used, 1m to 8760h")
	asJSON = jsonFlag(c)
	return c
}

// account finds an account by what a person wrote: its id, or its name.
func account(ctx context.Context, s *session, text string) (*wire.AdminAccount, error) {
	if id, err := ids.Parse(text); err == nil {
		out, err := call[*wire.AdminAccount](ctx, s, &wire.AdminGetAccountRequest{AccountID: id})
		if err == nil {
			return out, nil
		}
	}
	return call[*wire.AdminAccount](ctx, s, &wire.AdminGetAccountRequest{Name: text})
}

func accountCommand() *cobra.Command {
	var asJSON *bool
	c := verb("account NAME|ID", "Show an account and its devices", "What the cell knows of it; no message is among that.",
		exactly(1, "give the account's name or id: kubectl-qpq account NAME"), func(c *cobra.Command, s *session, args []string) error {
			a, err := account(c.Context(), s, args[0])
			if err != nil {
				return err
			}
			if *asJSON {
				return printJSON(c.OutOrStdout(), shown(a))
			}
			return printAccount(c.OutOrStdout(), a)
		})
	asJSON = jsonFlag(c)
	return c
}

type shownDevice struct {
	ID       ids.ID     `json:"id"`
	Name     string     `json:"name"`
	AddedAt  time.Time  `json:"addedAt"`
	LastSeen *time.Time `json:"lastSeen,omitempty"` // The day.
}

type shownAccount struct {
	ID        ids.ID        `json:"id"`
	Name      string        `json:"name"`
	CreatedAt time.Time     `json:"createdAt"`
	Disabled  bool          `json:"disabled"`
	Devices   []shownDevice `json:"devices"`
}

func shown(a *wire.AdminAccount) shownAccount {
	out := shownAccount{a.AccountID, a.Name, a.CreatedAt.UTC(), a.Disabled, []shownDevice{}}
	for _, d := range a.Devices {
		device := shownDevice{ID: d.DeviceID, Name: d.Name, AddedAt: d.AddedAt.UTC()}
		if !d.LastSeenAt.IsZero() {
			seen := d.LastSeenAt.UTC()
			device.LastSeen = &seen
		}
		out.Devices = append(out.Devices, device)
	}
	return out
}

func printAccount(w io.Writer, a *wire.AdminAccount) error {
	state := "in use"
	if a.Disabled {
		state = "disabled"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "name     %s\naccount  %s\nstate    %s\nsince    %s\n", visible(a.Name), a.AccountID, state, a.CreatedAt.Local().Format(time.DateTime))
	for _, d := range a.Devices {
		seen := "never seen"
		if !d.LastSeenAt.IsZero() {
			seen = "last seen " + d.LastSeenAt.UTC().Format(time.DateOnly)
		}
		fmt.Fprintf(&b, "device   %s  %s, added %s, %s\n", d.DeviceID, visible(d.Name), d.AddedAt.Local().Format(time.DateTime), seen)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// visible shows what somebody else chose as a terminal can take it.
func visible(name string) string {
	if quoted := strconv.Quote(name); quoted != `"`+name+`"` {
		return quoted
	}
	return name
}

// change makes a command that finds an account and changes something of it.
func change(use, short, long, done string, n int, request func(a *wire.AdminAccount, args []string) (wire.Request, error)) *cobra.Command {
	return verb(use, short, long, exactly(n, "give what it takes: kubectl-qpq "+use), func(c *cobra.Command, s *session, args []string) error {
		a, err := account(c.Context(), s, args[0])
		if err != nil {
			return err
		}
		r, err := request(a, args)
		if err != nil {
			return err
		}
		if _, err := call[*wire.Done](c.Context(), s, r); err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), done+"\n", visible(a.Name), a.AccountID)
		return err
	})
}

func disableCommand(disable bool) *cobra.Command {
	use, short, long, done := "disable NAME|ID", "Shut an account out", "Its sessions end and it cannot log in. Its name stays taken, and what is sent to\nit waits; enable lets it in again.", "%s (account %s) is disabled"
	if !disable {
		use, short, long, done = "enable NAME|ID", "Let a disabled account in again", "Its devices log in again by themselves where they still may, or by passphrase.", "%s (account %s) is enabled"
	}
	return change(use, short, long, done, 1, func(a *wire.AdminAccount, _ []string) (wire.Request, error) {
		return &wire.AdminSetDisabledRequest{AccountID: a.AccountID, Disabled: disable}, nil
	})
}

func endSessionsCommand() *cobra.Command {
	return change("end-sessions NAME|ID", "Log out all devices of an account", "They stay devices of the account, and log in again by passphrase.", "the sessions of %s (account %s) have ended", 1,
		func(a *wire.AdminAccount, _ []string) (wire.Request, error) {
			return &wire.AdminEndSessionsRequest{AccountID: a.AccountID}, nil
		})
}

func revokeDeviceCommand() *cobra.Command {
	return change("revoke-device NAME|ID DEVICE", "End a device of an account for good", "For a device that was lost. DEVICE is its id, as kubectl-qpq account shows it.", "the device of %s (account %s) is revoked", 2,
		func(a *wire.AdminAccount, args []string) (wire.Request, error) {
			device, err := ids.Parse(args[1])
			if err != nil {
				return nil, fmt.Errorf("%q is not the id of a device; kubectl-qpq account %s shows them", args[1], a.Name)
			}
			for _, d := range a.Devices {
				if d.DeviceID == device {
					return &wire.AdminRevokeDeviceRequest{AccountID: a.AccountID, DeviceID: device}, nil
				}
			}
			return nil, fmt.Errorf("%s has no device %s; kubectl-qpq account %s shows those it has", visible(a.Name), device, a.Name)
		})
}

func deleteAccountCommand() *cobra.Command {
	var yes string
	c := change("delete-account NAME|ID --yes NAME", "Delete an account", "There is no way back: its devices, keys and what was sent to it are removed. --yes\nrepeats the account's name, so that none is deleted by mistake.", "%s (account %s) is deleted", 1,
		func(a *wire.AdminAccount, _ []string) (wire.Request, error) {
			if yes != a.Name {
				return nil, fmt.Errorf("nothing was deleted: repeat the account's name to say that it is meant: --yes %s", visible(a.Name))
			}
			return &wire.AdminDeleteAccountRequest{AccountID: a.AccountID, Name: a.Name}, nil
		})
	c.Flags().StringVar(&yes, "yes", "", "the account's `NAME` once more")
	return c
}
