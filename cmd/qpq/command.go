package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"quicproquo.dev/client"
	"quicproquo.dev/client/conn"
	"quicproquo.dev/internal/secretflag"
	"quicproquo.dev/internal/version"
)

// flags are the global ones, which may stand before or behind the verb.
type flags struct {
	cell, ca, pin, profile, deviceName string
	clientCert, clientKey              string
	json                               bool
}

const help = `qpq sends and receives end-to-end encrypted messages through a quicproquo cell.

Sign up once; the profile then remembers the cell:

  qpq signup alice --cell chat.example:4201 --pin 5e88…
  qpq dm bob hello, how are you?
  qpq read --follow

The passphrase is the account's password and protects the profile too. It is
asked for, or taken from QPQ_PASSPHRASE; a new one from QPQ_NEW_PASSPHRASE, and
recovery and reset codes from QPQ_CODE. No flag takes a secret. QPQ_CELL, QPQ_CA, QPQ_PIN,
QPQ_PROFILE, QPQ_CLIENT_CERT and QPQ_CLIENT_KEY stand in for flags that are
not given.`

func (p *program) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "qpq",
		Short:         "End-to-end encrypted messages through a quicproquo cell",
		Long:          help,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs("there is no command %q; qpq --help lists them"),
		RunE:          func(*cobra.Command, []string) error { return usageError("give a command; qpq --help lists them") },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	secretflag.Refuse(root, func(err error) error { return usageError(err.Error()) },
		secretflag.Hint{Words: "code recover token", Text: "it is asked for, or taken from " + codeEnv},
		secretflag.Hint{Text: "it is asked for, or taken from " + passphraseEnv + ", and a new one from " + newPassphraseEnv})
	f := root.PersistentFlags()
	f.StringVar(&p.flags.cell, "cell", "", "the cell's address, `HOST:PORT`")
	f.StringVar(&p.flags.ca, "ca", "", "know the cell by its CA's certificate in this PEM `FILE`")
	f.StringVar(&p.flags.pin, "pin", "", "know the cell by its CA's pin, `HEX`: the SHA-256 of the CA's public key")
	f.StringVar(&p.flags.clientCert, "client-cert", "", "a client certificate for a cell that asks for one, in this PEM `FILE`")
	f.StringVar(&p.flags.clientKey, "client-key", "", "the client certificate's private key, in this PEM `FILE`")
	f.StringVar(&p.flags.profile, "profile", "", "the profile's `DIR` (default ~/.config/qpq)")
	f.BoolVar(&p.flags.json, "json", false, "print JSON, one object a line, errors too")
	root.MarkFlagsMutuallyExclusive("ca", "pin")
	root.MarkFlagsRequiredTogether("client-cert", "client-key")
	root.AddCommand(p.signupCommand(), p.loginCommand(), p.logoutCommand(), p.passwdCommand(), p.recoverCodesCommand(), p.recoverCommand(),
		p.resetCommand(), p.trustCommand(), p.devicesCommand(), p.accountCommand(), p.whoamiCommand(), p.dmCommand(), p.readCommand(), p.contactsCommand(), p.versionCommand())
	return root
}

// usageError is a command line that cannot be understood.
type usageError string

func (e usageError) Error() string { return string(e) }

func noArgs(format string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError(fmt.Sprintf(format, args[0]))
		}
		return nil
	}
}

func exactly(n int, message string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError(message)
		}
		return nil
	}
}

func (p *program) signupCommand() *cobra.Command {
	var codes bool
	var invitation string
	cmd := &cobra.Command{
		Use:   "signup NAME",
		Short: "Make an account with this as its first device",
		Long: "Make an account with this as its first device. Where the cell asks for an\ninvitation, it is taken from --invite or " + codeEnv +
			", or asked for.",
		Args: exactly(1, "give the account's name: qpq signup NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.signup(cmd.Context(), args[0], invitation, codes)
		},
	}
	p.deviceNameFlag(cmd)
	// No secret of the person's: it opens nothing once it is used, and that it is used is what comes next.
	cmd.Flags().StringVar(&invitation, "invite", "", "`CODE` of the invitation, where the cell asks for one")
	codesFlag(cmd, &codes)
	return cmd
}

func codesFlag(cmd *cobra.Command, codes *bool) {
	cmd.Flags().BoolVar(codes, "recovery-codes", false, "print recovery codes, for when the passphrase is forgotten")
}

func number(codes bool) int {
	if codes {
		return client.DefaultRecoveryCodes
	}
	return 0
}

func (p *program) loginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "login NAME",
		Short: "Add this device to an account, or renew its session",
		Args:  exactly(1, "give the account's name: qpq login NAME"),
		RunE:  func(cmd *cobra.Command, args []string) error { return p.login(cmd.Context(), args[0]) },
	}
	p.deviceNameFlag(cmd)
	return cmd
}

func (p *program) deviceNameFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.flags.deviceName, "device-name", client.DefaultDeviceName(), "what you call this device, `TEXT`")
}

func (p *program) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "whoami",
		Short: "Print the profile's account, device and cell",
		Args:  noArgs("whoami takes no argument such as %q"),
		RunE:  func(cmd *cobra.Command, _ []string) error { return p.whoami(cmd.Context()) },
	}
}

func (p *program) dmCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "dm NAME TEXT…",
		Short: "Send a direct message; TEXT - reads it from standard input",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usageError("give a name and a text: qpq dm NAME TEXT…")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return p.dm(cmd.Context(), args[0], args[1:]) },
	}
}

func (p *program) readCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "read",
		Short: "Print received messages",
		Args:  noArgs("read takes no argument such as %q"),
		RunE:  func(cmd *cobra.Command, _ []string) error { return p.read(cmd.Context(), follow) },
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on printing what comes, until interrupted")
	return cmd
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the program's version",
		Args:  noArgs("version takes no argument such as %q"),
		RunE: func(*cobra.Command, []string) error {
			return p.print(struct {
				Version string `json:"version"`
			}{version.String()}, "qpq "+version.String())
		},
	}
}

// env returns a flag's value, or that of its environment variable.
func (p *program) env(flag, name string) string {
	if flag == "" {
		flag, _ = p.getenv(name)
	}
	return flag
}

// options gathers what the SDK needs. confirm asks for a new passphrase twice.
func (p *program) options(confirm bool) (client.Options, error) {
	o := client.Options{Endpoint: p.env(p.flags.cell, "QPQ_CELL"), Profile: p.env(p.flags.profile, "QPQ_PROFILE"),
		DeviceName: p.flags.deviceName, Program: "qpq " + version.String()}
	if o.Profile == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return o, usageError("say where the profile lies: --profile DIR (" + err.Error() + ")")
		}
		o.Profile = filepath.Join(dir, "qpq")
	}
	if err := p.trust(&o); err != nil {
		return o, err
	}
	if err := p.certificate(&o); err != nil {
		return o, err
	}
	var err error
	o.Passphrase, err = p.passphrase(o.Profile, confirm)
	return o, err
}

// certificate reads the client certificate, if there is one.
func (p *program) certificate(o *client.Options) error {
	cert, key := p.env(p.flags.clientCert, "QPQ_CLIENT_CERT"), p.env(p.flags.clientKey, "QPQ_CLIENT_KEY")
	switch {
	case cert == "" && key == "":
		return nil
	case cert == "" || key == "":
		return usageError("a client certificate is two files: give both --client-cert FILE and --client-key FILE")
	}
	var err error
	o.Certificate, err = conn.LoadCertificate(cert, key)
	return err
}

// trust reads the CA or the pin: a flag wins over the environment, whichever of the two it is.
func (p *program) trust(o *client.Options) error {
	ca, pin := p.flags.ca, p.flags.pin
	if ca == "" && pin == "" {
		ca, pin = p.env("", "QPQ_CA"), p.env("", "QPQ_PIN")
	}
	if ca == "" {
		o.Pin = pin
		return nil
	}
	b, err := os.ReadFile(ca) //nolint:gosec // the file that the user names.
	if err == nil && len(b) == 0 {
		err = errors.New("the file is empty")
	}
	if err != nil {
		return usageError("reading the CA file: " + err.Error())
	}
	o.CA = b
	return nil
}
