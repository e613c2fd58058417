//go:build unix

package embeddedpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// How long Start waits for the server of a killed caller to leave the data
// directory: one that is shutting down writes its checkpoint first.
const (
	leaveGrace = 5 * time.Second
	stopGrace  = 30 * time.Second
)

const pollEvery = 25 * time.Millisecond

func (o Options) dataDir() string      { return filepath.Join(o.Dir, "data") }
func (o Options) newDataDir() string   { return filepath.Join(o.Dir, "data.new") }
func (o Options) passwordFile() string { return filepath.Join(o.Dir, "password") }
func (o Options) logFile() string      { return filepath.Join(o.Dir, "postgres.log") }
func (o Options) lockFile() string     { return filepath.Join(o.Dir, "lock") }

// lockDir takes the directory for this process, until filelock.Release or the process's
// end.
func lockDir(o Options) (*os.File, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(o.lockFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder, _ := os.ReadFile(o.lockFile())
		return nil, errors.Join(inUseError(o, strings.TrimSpace(string(holder))), f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", o.lockFile(), err), f.Close())
	}
	if err := writeHolder(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func writeHolder(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}

func inUseError(o Options, pids string) error {
	return fmt.Errorf("the data directory %s is in use by process %s: stop that first, or name another directory", o.dataDir(), pids)
}

// dataMajor returns the major version that made the data directory, 0 if there is none yet.
func dataMajor(o Options) (int, error) {
	if _, err := os.Stat(o.dataDir()); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	text, err := os.ReadFile(filepath.Join(o.dataDir(), "PG_VERSION"))
	if errors.Is(err, fs.ErrPermission) {
		return 0, fmt.Errorf("%s belongs to another user: start as that user or as root: %w", o.dataDir(), err)
	}
	if err != nil {
		return 0, fmt.Errorf("%s is not a PostgreSQL data directory; remove it, or name another directory: %w", o.dataDir(), err)
	}
	major, err := leadingInt(string(text))
	if err != nil {
		return 0, fmt.Errorf("%s does not hold a version number: %w", filepath.Join(o.dataDir(), "PG_VERSION"), err)
	}
	return major, nil
}

// pidFile is what we need of postmaster.pid.
type pidFile struct {
	pid    int
	status string // "starting", "ready", "stopping", …
}

// readPIDFile returns a zero pidFile if there is none or it is not yet complete.
func readPIDFile(dataDir string) (pidFile, error) {
	text, err := os.ReadFile(pidFilePath(dataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return pidFile{}, nil
	}
	if err != nil {
		return pidFile{}, err
	}
	lines := strings.Split(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil {
		return pidFile{}, nil //nolint:nilerr // half written: as good as none
	}
	pf := pidFile{pid: pid}
	if len(lines) > 7 {
		pf.status = strings.TrimSpace(lines[7])
	}
	return pf, nil
}

func pidFilePath(dataDir string) string { return filepath.Join(dataDir, "postmaster.pid") }

// awaitVacant returns once no server uses the data directory. One that is
// going away, because its caller was killed, is waited for; any other is an
// error. Of a server that was killed itself nothing remains to be done here:
// PostgreSQL recovers from its files.
func awaitVacant(ctx context.Context, o Options) error {
	begin := time.Now()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for said := false; ; said = true {
		pf, pids, err := users(o)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return dropForeignPID(o, pf)
		}
		if time.Since(begin) > patience(pf, pids) {
			return inUseError(o, joinInts(pids))
		}
		if !said {
			o.say("waiting for the server that used %s before (process %s) to end", o.dataDir(), joinInts(pids))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func users(o Options) (pidFile, []int, error) {
	pf, err := readPIDFile(o.dataDir())
	if err != nil {
		return pf, nil, err
	}
	pids, err := serversIn(o.dataDir(), pf.pid)
	return pf, pids, err
}

func patience(pf pidFile, pids []int) time.Duration {
	if pf.status == "stopping" || !slices.Contains(pids, pf.pid) {
		return stopGrace
	}
	return leaveGrace
}

// dropForeignPID removes a postmaster.pid whose number now belongs to an
// unrelated process, as happens after a reboot or in a new container:
// PostgreSQL would take that process for its predecessor. The file of a dead
// process stays: PostgreSQL reads from it which shared memory to check.
func dropForeignPID(o Options, pf pidFile) error {
	if pf.pid == 0 || !processExists(pf.pid) {
		return nil
	}
	err := os.Remove(pidFilePath(o.dataDir()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // its owner ended, and took it along, just after we had read it
	}
	o.say("removed a stale %s", pidFilePath(o.dataDir()))
	return err
}

func joinInts(ns []int) string {
	texts := make([]string, 0, len(ns))
	for _, n := range ns {
		texts = append(texts, strconv.Itoa(n))
	}
	return strings.Join(texts, ", ")
}
