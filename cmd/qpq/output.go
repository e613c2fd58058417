package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"quicproquo.dev/client"
	"quicproquo.dev/client/conn"
	"quicproquo.dev/client/keystore"
)

// print writes one result to standard output: the object under --json, else the line.
func (p *program) print(object any, line string) error { return p.printTo(p.stdout, object, line) }

// printTo writes with one call, so that lines of several processes on one terminal or pipe do not mix.
func (p *program) printTo(w io.Writer, object any, line string) error {
	b := []byte(line + "\n")
	if p.flags.json {
		var err error
		if b, err = encode(object); err != nil {
			return err
		}
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

// encode returns the object on one line. HTML's characters are left as they are.
func encode(object any) ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(object)
	return []byte(b.String()), err
}

// failedJSON is an error as --json prints it.
type failedJSON struct {
	Code      string `json:"code"`
	Message   string `json:"message"`
	Retryable bool   `json:"retryable"`
	// Queued is the delivery id of a message that is saved and will be sent: do not send it anew.
	Queued string `json:"queued,omitempty"`
}

// report writes an error to standard error and returns the exit code.
func (p *program) report(err error, args []string) int {
	failed, exit := describe(err)
	// A command line that cannot be understood may not have got as far as the flag.
	p.flags.json = p.flags.json || slices.Contains(args, "--json")
	_ = p.printTo(p.stderr, struct {
		Error failedJSON `json:"error"`
	}{failed}, "qpq: "+visible(failed.Message))
	return exit
}

func describe(err error) (failedJSON, int) {
	var usage usageError
	var unreadable unreadableError
	switch {
	case errors.As(err, &usage), isCobraUsage(err):
		return failedJSON{Code: "usage", Message: err.Error()}, exitUsage
	case errors.As(err, &unreadable):
		return failedJSON{Code: "unreadableMessages", Message: err.Error()}, exitFailed
	case errors.Is(err, keystore.ErrNoProfile), errors.Is(err, client.ErrNoAccount):
		err = fmt.Errorf("%w; make one with qpq signup NAME or qpq login NAME, or name another with --profile DIR", err)
	case errors.Is(err, client.ErrLoggedOut), errors.Is(err, client.ErrPasswordChanged):
		err = fmt.Errorf("%w: qpq login NAME", err)
	case errors.Is(err, errNotMeant):
		return failedJSON{Code: "notConfirmed", Message: err.Error()}, exitFailed
	case errors.Is(err, client.ErrRevoked):
		err = fmt.Errorf("%w: qpq login NAME --profile DIR, or qpq devices add --profile DIR. What it has received so far stays in this profile", err)
	case isUnshown(err):
		err = fmt.Errorf("%w: --client-cert FILE --client-key FILE", err)
	case errors.Is(err, client.ErrNoCell):
		err = fmt.Errorf("%w with --cell", err)
	}
	f := failedJSON{Code: client.Code(err), Message: err.Error(), Retryable: client.Retryable(err)}
	var queued *client.QueuedError
	if errors.As(err, &queued) {
		f.Queued = queued.DeliveryID.String()
	}
	if errors.Is(err, context.Canceled) {
		f.Code = "interrupted"
	}
	return f, exitFailed
}

// isUnshown recognizes a cell that asks for a client certificate when none was given.
func isUnshown(err error) bool {
	var refused *conn.CertificateError
	return errors.As(err, &refused) && !refused.Shown
}

// isCobraUsage recognizes the one kind of mistake that cobra reports without letting us wrap it.
func isCobraUsage(err error) bool { return strings.HasPrefix(err.Error(), "if any flags in the group") }

// visible makes a text safe for a terminal: control characters and those that reorder text are escaped; further lines
// are indented, so that none passes for another message.
func visible(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '\n':
			b.WriteString("\n    ")
		case r == '\t':
			b.WriteRune(r)
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), unicode.Is(unicode.Zl, r), unicode.Is(unicode.Zp, r):
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
