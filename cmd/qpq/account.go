package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"quicproquo.dev/client"
	"quicproquo.dev/client/keystore"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

const (
	newPassphraseEnv = "QPQ_NEW_PASSPHRASE"
	codeEnv          = "QPQ_CODE"
)

func (p *program) passwdCommand() *cobra.Command {
	var end bool
	cmd := &cobra.Command{
		Use:   "passwd",
		Short: "Change the passphrase of the account and of this profile",
		Args:  noArgs("passwd takes no argument such as %q"),
		RunE:  func(cmd *cobra.Command, _ []string) error { return p.passwd(cmd.Context(), end) },
	}
	endFlag(cmd, &end)
	return cmd
}

func endFlag(cmd *cobra.Command, end *bool) {
	cmd.Flags().BoolVar(end, "end-other-sessions", false, "log all other devices of the account out")
}

func (p *program) recoverCodesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "recover-codes",
		Short: "Print fresh recovery codes; earlier ones are void from then on",
		Args:  noArgs("recover-codes takes no argument such as %q"),
		RunE:  func(cmd *cobra.Command, _ []string) error { return p.recoverCodes(cmd.Context()) },
	}
}

func (p *program) recoverCommand() *cobra.Command {
	var end bool
	cmd := &cobra.Command{
		Use:   "recover NAME",
		Short: "Set a new passphrase by a recovery code, and add this device",
		Long:  "Set a new passphrase by a recovery code, and add this device.\nThe code is asked for, or taken from " + codeEnv + ".",
		Args:  exactly(1, "give the account's name: qpq recover NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			code, err := p.code("Recovery code: ")
			if err != nil {
				return err
			}
			return p.enter(cmd.Context(), true, func(ctx context.Context, o client.Options) (*client.Client, error) {
				return client.Recover(ctx, o, args[0], code, end)
			})
		},
	}
	p.deviceNameFlag(cmd)
	endFlag(cmd, &end)
	return cmd
}

func (p *program) resetCommand() *cobra.Command {
	var codes bool
	cmd := &cobra.Command{
		Use:   "reset NAME",
		Short: "Start an account over when passphrase, devices and recovery codes are lost; all contacts are warned",
		Long: `Start an account over when passphrase, devices and recovery codes are lost; all
contacts are warned. It takes a reset code of the cell's admin, which is asked for,
or taken from ` + codeEnv + `.`,
		Args: exactly(1, "give the account's name: qpq reset NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			code, err := p.code("Reset code: ")
			if err != nil {
				return err
			}
			return p.enter(cmd.Context(), true, func(ctx context.Context, o client.Options) (*client.Client, error) {
				o.RecoveryCodes = number(codes)
				return client.Reset(ctx, o, args[0], code)
			})
		},
	}
	p.deviceNameFlag(cmd)
	codesFlag(cmd, &codes)
	return cmd
}

func (p *program) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "logout",
		Short: "End this device's session; its conversations stay in the profile",
		Args:  noArgs("logout takes no argument such as %q"),
		RunE:  func(cmd *cobra.Command, _ []string) error { return p.logout(cmd.Context()) },
	}
}

func (p *program) trustCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "trust NAME",
		Short: "Accept the keys under which a contact appears now; ask them in person first",
		Args:  exactly(1, "give the contact's name: qpq trust NAME"),
		RunE:  func(cmd *cobra.Command, args []string) error { return p.acceptKey(cmd.Context(), args[0]) },
	}
}

// code takes the environment's, or asks.
func (p *program) code(question string) (string, error) {
	if code := p.env("", codeEnv); code != "" {
		return code, nil
	}
	b, err := p.prompt(question)
	return string(b), err
}

// newPassphrase takes the environment's, or asks twice.
func (p *program) newPassphrase() ([]byte, error) {
	if s, ok := p.getenv(newPassphraseEnv); ok {
		if s == "" {
			return nil, keystore.ErrEmptyPassphrase
		}
		return []byte(s), nil
	}
	first, err := p.prompt("New passphrase: ")
	if err != nil {
		return nil, err
	}
	return p.again(first)
}

var errDiffer = errors.New("the two passphrases differ")

// signup makes an account. Where the cell asks for an invitation and none is given, it is taken from the environment, or
// asked for.
func (p *program) signup(ctx context.Context, name, invitation string, codes bool) error {
	return p.enter(ctx, true, func(ctx context.Context, o client.Options) (*client.Client, error) {
		given := invitation != ""
		if o.Invitation = invitation; !given {
			o.Invitation, given = p.getenv(codeEnv)
		}
		o.RecoveryCodes = number(codes)
		c, err := client.Signup(ctx, o, name)
		if given || !wire.HasCode(err, wire.CodeInvalidInvitation) {
			return c, err
		}
		b, askErr := p.prompt("Invitation: ")
		if askErr != nil {
			return nil, fmt.Errorf("%w; set %s to it", err, codeEnv)
		}
		o.Invitation = string(b)
		return client.Signup(ctx, o, name)
	})
}

// login logs in. Where the passphrase opens the profile and is not the account's any more, the account's is asked for.
func (p *program) login(ctx context.Context, name string) error {
	return p.enter(ctx, false, func(ctx context.Context, o client.Options) (*client.Client, error) {
		had, err := keystore.Exists(o.Profile)
		if err != nil {
			return nil, err
		}
		c, err := client.Login(ctx, o, name)
		if !had || !wire.HasCode(err, wire.CodeInvalidCredentials) {
			return c, err
		}
		var askErr error
		if o.Password, askErr = p.accountPassphrase(); askErr != nil {
			return nil, fmt.Errorf("%w; if it was changed on another device, set %s to the present one", err, newPassphraseEnv)
		}
		defer clear(o.Password)
		return client.Login(ctx, o, name)
	})
}

func (p *program) accountPassphrase() ([]byte, error) {
	if s, ok := p.getenv(newPassphraseEnv); ok && s != "" {
		return []byte(s), nil
	}
	return p.prompt("That opens the profile, but it is not the account's passphrase. The account's: ")
}

func (p *program) passwd(ctx context.Context, end bool) error {
	c, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	passphrase, err := p.newPassphrase()
	if err != nil {
		return err
	}
	defer clear(passphrase)
	if err := c.ChangePassword(ctx, passphrase, end); err != nil {
		return err
	}
	line := "the passphrase is changed"
	if end {
		line += "; other devices are logged out"
	}
	return p.print(struct {
		Changed     bool `json:"changed"`
		OthersEnded bool `json:"otherSessionsEnded"`
	}{true, end}, line)
}

func (p *program) recoverCodes(ctx context.Context) error {
	c, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := c.NewRecoveryCodes(ctx, client.DefaultRecoveryCodes)
	if err != nil {
		return err
	}
	return p.print(struct {
		RecoveryCodes []string `json:"recoveryCodes"`
	}{list}, strings.TrimPrefix(listCodes(list), "\n"))
}

// listCodes is what people see of fresh recovery codes.
func listCodes(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return "\nrecovery codes, each for one use; write them down, they are not shown again:\n  " + strings.Join(list, "\n  ")
}

func (p *program) logout(ctx context.Context) error {
	c, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Logout(ctx); err != nil {
		return err
	}
	return p.print(struct {
		LoggedOut bool `json:"loggedOut"`
	}{true}, "logged out; qpq login "+visible(c.Whoami().Name)+" takes the profile up again")
}

// trusted is what trust prints.
type trusted struct {
	Name    string `json:"name"`
	Account ids.ID `json:"account"`
	Changed bool   `json:"changed"`
	Old     string `json:"oldKey,omitempty"`
	New     string `json:"newKey,omitempty"`
}

func (p *program) acceptKey(ctx context.Context, name string) error {
	c, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	k, err := c.TrustNewKey(ctx, name)
	if err != nil {
		return err
	}
	if k == nil {
		return p.print(trusted{Name: name}, "the keys of "+visible(name)+" are the ones that are trusted already")
	}
	return p.print(trusted{k.Name, k.Account, true, fingerprint(k.Old), fingerprint(k.New)},
		fmt.Sprintf("%s is trusted under the key %s from now on; it was %s", visible(k.Name), fingerprint(k.New), fingerprint(k.Old)))
}

// fingerprint is the first 80 bits of the key's SHA-256, in groups.
func fingerprint(key []byte) string {
	h := sha256.Sum256(key)
	var groups []string
	for i := 0; i < 10; i += 2 {
		groups = append(groups, fmt.Sprintf("%x", h[i:i+2]))
	}
	return strings.Join(groups, " ")
}
