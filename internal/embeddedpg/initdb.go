//go:build unix

package embeddedpg

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// initialize makes the data directory under a passing name and renames it at
// the end, so that an interrupted first start leaves nothing half made.
func initialize(ctx context.Context, o Options, a account, b binaries) error {
	o.say("creating a new data directory in %s (PostgreSQL %d), a few seconds", o.Dir, b.major)
	if err := os.RemoveAll(o.newDataDir()); err != nil {
		return err
	}
	if err := makeDirFor(o.newDataDir(), a); err != nil {
		return err
	}
	password, err := newPassword()
	if err != nil {
		return err
	}
	if err := runInitdb(ctx, o, a, b, password); err != nil {
		return err
	}
	if err := writeSecret(o.passwordFile(), password); err != nil {
		return err
	}
	if err := os.Rename(o.newDataDir(), o.dataDir()); err != nil {
		return err
	}
	return syncDir(o.Dir)
}

func makeDirFor(dir string, a account) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if !a.drop {
		return nil
	}
	return os.Chown(dir, int(a.uid), int(a.gid))
}

func runInitdb(ctx context.Context, o Options, a account, b binaries, password string) error {
	dir, err := os.Open(o.newDataDir())
	if err != nil {
		return err
	}
	defer dir.Close() // read only
	log, err := openLog(o)
	if err != nil {
		return err
	}
	defer log.Close() // nothing is written here; the child has its own
	pw, err := passwordPipe(password, a)
	if err != nil {
		return err
	}
	defer pw.Close() // read only
	cmd := a.command(b.initdb(), "--username="+User, "--encoding=UTF8", "--locale=C",
		"--auth-host=scram-sha-256", "--auth-local=scram-sha-256", "--data-checksums", "--no-instructions")
	cmd.Args = append(cmd.Args, "--pgdata="+a.attachDir(cmd, dir), "--pwfile="+attachFile(cmd, pw))
	if o.NoFsync {
		cmd.Args = append(cmd.Args, "--no-sync")
	}
	cmd.Stdout, cmd.Stderr = log, log
	from := fileSize(o.logFile())
	p, err := startProcess(cmd, syscall.SIGKILL, nil)
	if err != nil {
		return fmt.Errorf("starting initdb: %w", err)
	}
	if err := p.run(ctx); err != nil {
		return fmt.Errorf("initdb failed: %w%s", err, tail(o.logFile(), from))
	}
	return nil
}

// passwordPipe hands the password over without its ever being in a file that
// the account could read later, in an argument or in the environment.
func passwordPipe(password string, a account) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, err = w.WriteString(password + "\n") // fits the pipe's buffer
	if err = errors.Join(err, w.Close()); err == nil && a.drop {
		err = r.Chown(int(a.uid), int(a.gid))
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func newPassword() (string, error) {
	var b [24]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	return hex.EncodeToString(b[:]), nil
}

func readPassword(o Options) (string, error) {
	text, err := os.ReadFile(o.passwordFile())
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s is missing, so nobody can log in to the data in %s: put it back, or, if the data may be lost, remove %s to start afresh", o.passwordFile(), o.dataDir(), o.dataDir())
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(text)), nil
}

// writeSecret replaces a file that only the caller may read, durably.
func writeSecret(path, text string) error {
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
