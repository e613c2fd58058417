//go:build unix

package embeddedpg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// account is who the server processes run as.
type account struct {
	uid, gid uint32
	// drop is set when the caller is root and the children must not be.
	drop bool
}

// chooseAccount picks who runs the server: the caller, unless that is root.
// An existing data directory decides by its owner, since PostgreSQL insists
// that the two are the same.
func chooseAccount(dataDir string) (account, error) {
	me := account{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())} //nolint:gosec // ids have 32 bits
	if me.uid != 0 {
		return me, nil
	}
	owner, err := ownerOf(dataDir)
	switch {
	case err == nil && owner.uid != 0:
		return owner, nil
	case err == nil:
		return account{}, fmt.Errorf("%s belongs to root, and PostgreSQL does not run as root: chown -R it to the user postgres, or remove it to start afresh", dataDir)
	case !errors.Is(err, fs.ErrNotExist):
		return account{}, err
	}
	for _, name := range []string{"postgres", "nobody"} {
		if a, err := lookupAccount(name); err == nil {
			return a, nil
		}
	}
	return account{}, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody to run it as: create one (useradd --system postgres), or start as an ordinary user")
}

func ownerOf(path string) (account, error) {
	info, err := os.Stat(path)
	if err != nil {
		return account{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return account{}, fmt.Errorf("the owner of %s cannot be told on this system", path)
	}
	return account{uid: st.Uid, gid: st.Gid, drop: true}, nil
}

func lookupAccount(name string) (account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("user %s: %w", name, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("user %s: %w", name, err)
	}
	return account{uid: uint32(uid), gid: uint32(gid), drop: true}, nil
}

// command prepares a child that runs as the account, away from the caller's
// process group (Ctrl-C in a terminal is for the caller, who then stops the
// server in its own order), environment (PGDATA, PGPORT, …) and directory.
func (a account) command(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...) //nolint:noctx // startProcess and its callers see to the end
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C", "TZ=UTC", "HOME=/"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if a.drop {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	return cmd
}

// attachDir gives the child an open directory and returns the path by which
// the child reaches it.
func (a account) attachDir(cmd *exec.Cmd, dir *os.File) string {
	if !a.drop {
		return dir.Name()
	}
	return attachFile(cmd, dir)
}

// attachFile gives the child an open file and returns its path there. The
// child may open that path only if the account owns the file.
func attachFile(cmd *exec.Cmd, f *os.File) string {
	cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	return fmt.Sprintf("%s/%d", fdDir, 2+len(cmd.ExtraFiles))
}
