package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/term"

	"quicproquo.dev/client/keystore"
)

const passphraseEnv = "QPQ_PASSPHRASE"

// passphrase takes the environment's, or asks; a new one is asked for twice.
func (p *program) passphrase(profile string, confirm bool) ([]byte, error) {
	if s, ok := p.getenv(passphraseEnv); ok {
		if s == "" {
			return nil, keystore.ErrEmptyPassphrase
		}
		return []byte(s), nil
	}
	first, err := p.prompt("Passphrase: ")
	if err != nil || !confirm {
		return first, err
	}
	if exists, err := keystore.Exists(profile); err != nil || exists {
		return first, err
	}
	return p.again(first)
}

// again asks for a new passphrase once more, and returns it if it is the same.
func (p *program) again(first []byte) ([]byte, error) {
	second, err := p.prompt("The same again: ")
	if err != nil {
		return nil, err
	}
	defer clear(second)
	if !bytes.Equal(first, second) {
		clear(first)
		return nil, errDiffer
	}
	return first, nil
}

// askTerminal asks on the terminal, whatever standard input is, and does not show the answer.
func askTerminal(question string) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("there is no terminal to ask for the passphrase on: set %s", passphraseEnv)
	}
	defer tty.Close()
	if _, err := fmt.Fprint(tty, question); err != nil {
		return nil, err
	}
	answer, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(tty) //nolint:errcheck // only the cursor's place.
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	return answer, nil
}

// askVisibly asks on the terminal, and shows what is typed.
func askVisibly(question string) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errors.New("there is no terminal to ask on")
	}
	defer tty.Close()
	if _, err := fmt.Fprint(tty, question); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(tty).ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	return bytes.TrimSpace(line), nil
}
