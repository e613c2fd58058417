package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"quicproquo.dev/client"
	"quicproquo.dev/schema/ids"
)

// identity is what signup, login and whoami print.
type identity struct {
	Name    string `json:"name"`
	Account ids.ID `json:"account"`
	Device  ids.ID `json:"device"`
	Cell    string `json:"cell"`
	// RecoveryCodes are told once.
	RecoveryCodes []string `json:"recoveryCodes,omitempty"`
}

func (p *program) printIdentity(c *client.Client) error {
	me := c.Whoami()
	return p.print(identity{me.Name, me.AccountID, me.DeviceID, me.Endpoint, c.RecoveryCodes()},
		fmt.Sprintf("%s (account %s, device %s) at %s", visible(me.Name), me.AccountID, me.DeviceID, visible(me.Endpoint))+listCodes(c.RecoveryCodes()))
}

// enter makes a client by how and prints who it is. confirm asks for a new passphrase twice.
func (p *program) enter(ctx context.Context, confirm bool, how func(context.Context, client.Options) (*client.Client, error)) error {
	o, err := p.options(confirm)
	if err != nil {
		return err
	}
	defer clear(o.Passphrase)
	c, err := how(ctx, o)
	if err != nil {
		return err
	}
	defer c.Close()
	return p.printIdentity(c)
}

func (p *program) open(ctx context.Context) (*client.Client, error) {
	o, err := p.options(false)
	if err != nil {
		return nil, err
	}
	defer clear(o.Passphrase)
	return client.Open(ctx, o)
}

func (p *program) whoami(ctx context.Context) error {
	c, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return p.printIdentity(c)
}

func (p *program) dm(ctx context.Context, name string, words []string) error {
	text := strings.Join(words, " ")
	if text == "-" {
		b, err := io.ReadAll(p.stdin)
		if err != nil {
			return fmt.Errorf("reading the text: %w", err)
		}
		text = strings.TrimSuffix(string(b), "\n")
	}
	c, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	sent, err := c.SendDM(ctx, name, text)
	if waits := (*client.PendingError)(nil); errors.As(err, &waits) {
		return p.printPending(waits)
	}
	if err != nil {
		return err
	}
	return p.print(struct {
		Channel    ids.ID `json:"channel"`
		Seq        uint64 `json:"seq"`
		DeliveryID ids.ID `json:"deliveryId"`
		Bytes      int    `json:"bytes"`
	}{sent.Channel, sent.Seq, sent.DeliveryID, sent.Bytes},
		fmt.Sprintf("sent as message %d (%d bytes encrypted)", sent.Seq, sent.Bytes))
}

// unreadableError says that some messages could not be shown; each was reported by itself.
type unreadableError int

func (e unreadableError) Error() string {
	return fmt.Sprintf("%d messages could not be shown or sent; see above", int(e))
}

func (p *program) read(ctx context.Context, follow bool) error {
	failed, err := p.printAll(ctx, follow)
	switch {
	case follow && errors.Is(err, context.Canceled):
		return nil // A signal is how following ends.
	case err == nil && failed > 0 && !follow:
		return unreadableError(failed)
	}
	return err
}

func (p *program) printAll(ctx context.Context, follow bool) (failed int, err error) {
	c, err := p.open(ctx)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	err = c.Read(ctx, follow, func(m client.Message) error {
		if m.Failure != nil && m.Failure.Code != client.FailKeyChanged {
			failed++
		}
		return p.printMessage(m)
	})
	return failed, err
}

// message is what read prints.
type message struct {
	Channel    ids.ID   `json:"channel"`
	Seq        uint64   `json:"seq"`
	From       string   `json:"from"`
	Device     ids.ID   `json:"device"`
	DeliveryID ids.ID   `json:"deliveryId"`
	SentAt     string   `json:"sentAt,omitempty"`
	Text       string   `json:"text"`
	Error      *failure `json:"error,omitempty"`
}

// failure says why a message cannot be shown, or was not sent.
type failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

const timeJSON = "2006-01-02T15:04:05.000Z07:00"

// printMessage writes a message to standard output, one that cannot be shown to standard error; a line at a time.
func (p *program) printMessage(m client.Message) error {
	if m.Notice != nil {
		return p.printNotice(m)
	}
	out, from := p.stdout, visible(m.From)
	if from == "" {
		from = "account " + m.Account.String()
	}
	at := m.SentAt
	if at.IsZero() {
		at = m.AcceptedAt
	}
	line := fmt.Sprintf("%s  %s: %s", at.Local().Format(time.DateTime), from, visible(m.Text))
	object := message{Channel: m.Channel, Seq: m.Seq, From: m.From, Device: m.Device, DeliveryID: m.DeliveryID, Text: m.Text}
	if !m.SentAt.IsZero() {
		object.SentAt = m.SentAt.UTC().Format(timeJSON)
	}
	if m.Failure != nil {
		out = p.stderr
		object.Error = &failure{m.Failure.Code, m.Failure.Message}
		line = fmt.Sprintf("%s  message %d from %s: %s", at.Local().Format(time.DateTime), m.Seq, from, visible(m.Failure.Message))
		if m.Failure.Code == client.FailKeyChanged {
			line = fmt.Sprintf("WARNING  %s; then accept them with qpq trust %s", visible(m.Failure.Message), from)
		}
		if m.Text != "" {
			line += " — " + visible(m.Text)
		}
	}
	return p.printTo(out, object, line)
}
