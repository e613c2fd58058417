//go:build linux

package powerfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"syscall"
)

// childEnv tells a process that it is a Helper's.
const childEnv = "QPQ_POWERFS_CHILD"

// Helper is a filesystem that is served by a process of its own: this program once more. A program that uses files of a
// filesystem which it serves itself can come to wait for itself when it starts other programs. One goroutine uses it.
type Helper struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *json.Decoder
	stopped bool
}

// order is what a Helper's process is told, answer what it says.
type order struct {
	Backing, Mount string // To mount.
	Options        Options
	Loss           bool // Unmount and lose the power.
	Mode           Mode
	Seed           uint64
	Stats          bool
}

type answer struct {
	Error string
	Loss  Loss
	Stats Stats
}

// A program with this package is a Helper's process when its environment says so, before it does anything else.
func init() {
	if os.Getenv(childEnv) == "" {
		return
	}
	if err := serve(json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)); err != nil {
		fmt.Fprintln(os.Stderr, "powerfs:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve obeys until there are no more orders: then whoever gave them has gone, and the filesystem goes too.
func serve(in *json.Decoder, out *json.Encoder) error {
	var o order
	if err := in.Decode(&o); err != nil {
		return err
	}
	f, err := Mount(o.Backing, o.Mount, o.Options)
	for {
		a := answer{}
		switch {
		case err != nil:
			a.Error = err.Error()
		case o.Loss:
			a.Loss, err = f.PowerLoss(o.Mode, rand.New(rand.NewPCG(o.Seed, 7))) //nolint:gosec // a test's dice.
			if err != nil {
				a.Error = err.Error()
			}
		case o.Stats:
			a.Stats = f.Stats()
		}
		if err := out.Encode(a); err != nil {
			return errors.Join(err, f.Unmount())
		}
		o = order{}
		if end := in.Decode(&o); end != nil {
			if f == nil {
				return nil
			}
			return f.Unmount()
		}
	}
}

// Spawn is Mount in a process of its own.
func Spawn(backing, mount string, o Options) (*Helper, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	h := &Helper{cmd: exec.Command(self)} //nolint:gosec,noctx // this program; it ends when its input does.
	h.cmd.Env = append(os.Environ(), childEnv+"=1")
	h.cmd.Stderr = os.Stderr
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the maker, who ends what uses the files first.
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	h.out = json.NewDecoder(out)
	if err := h.cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := h.ask(order{Backing: backing, Mount: mount, Options: o}); err != nil {
		return nil, errors.Join(err, h.Unmount())
	}
	return h, nil
}

func (h *Helper) ask(o order) (answer, error) {
	var a answer
	err := json.NewEncoder(h.in).Encode(o)
	if err == nil {
		err = h.out.Decode(&a)
	}
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	}
	return a, err
}

// Stats returns the counts so far.
func (h *Helper) Stats() (Stats, error) {
	a, err := h.ask(order{Stats: true})
	return a.Stats, err
}

// PowerLoss is FS.PowerLoss, and ends the process. The seed decides what is lost.
func (h *Helper) PowerLoss(m Mode, seed uint64) (Loss, error) {
	a, err := h.ask(order{Loss: true, Mode: m, Seed: seed})
	return a.Loss, errors.Join(err, h.Unmount())
}

// Unmount ends the filesystem and its process; nothing is lost.
func (h *Helper) Unmount() error {
	if h.stopped {
		return nil
	}
	h.stopped = true
	return errors.Join(h.in.Close(), h.cmd.Wait())
}
