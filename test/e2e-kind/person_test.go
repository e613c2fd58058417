//go:build e2e

package e2ekind

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// person is somebody with the qpq program and a profile.
type person struct {
	t          *testing.T
	name       string
	dir        string
	passphrase string
	endpoint   string // of the cell; empty: the one that the profile knows
}

// message is what qpq --json prints of a message, received or sent.
type message struct {
	Channel    string `json:"channel"`
	Seq        uint64 `json:"seq"`
	From       string `json:"from"`
	DeliveryID string `json:"deliveryId"`
	Text       string `json:"text"`
}

// failure is what qpq --json prints when it fails.
type failure struct {
	Error struct {
		Code      string `json:"code"`
		Message   string `json:"message"`
		Retryable bool   `json:"retryable"`
		// Queued is the id of a message that will be sent later.
		Queued string `json:"queued"`
	} `json:"error"`
}

func makePerson(t *testing.T, name, dir string) person {
	t.Helper()
	return person{t: t, name: name, dir: filepath.Join(dir, name), passphrase: "the passphrase of " + name}
}

func (p person) on(t *testing.T) person {
	p.t = t
	return p
}

func (p person) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(p.t.Context(), *qpqFile, append([]string{"--json"}, args...)...)
	cmd.Env = []string{"QPQ_PASSPHRASE=" + p.passphrase, "QPQ_PROFILE=" + p.dir, "HOME=" + os.Getenv("HOME")}
	if p.endpoint != "" {
		cmd.Env = append(cmd.Env, "QPQ_CELL="+p.endpoint)
	}
	return cmd
}

// try runs qpq; a failure is returned in its own words.
func (p person) try(args ...string) (out string, f failure, ok bool) {
	p.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := p.command(args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err == nil {
		return stdout.String(), f, true
	}
	if json.Unmarshal(stderr.Bytes(), &f) != nil || f.Error.Code == "" {
		p.t.Fatalf("%s: qpq %q: %v: %s", p.name, args, err, &stderr)
	}
	return stdout.String(), f, false
}

// qpq runs qpq, which must succeed.
func (p person) qpq(args ...string) string {
	p.t.Helper()
	out, f, ok := p.try(args...)
	if !ok {
		p.t.Fatalf("%s: qpq %q: %+v", p.name, args, f.Error)
	}
	return out
}

// enter signs up or logs in.
func (p person) enter(verb string, s status) {
	p.t.Helper()
	from := time.Now()
	p.qpq(verb, p.name, "--cell", s.Endpoint, "--pin", s.Pin)
	say(p.t, "%s: %s in %.2f s", p.name, verb, time.Since(from).Seconds())
}

// tell sends a message and checks that the other reads it, once.
func (p person) tell(to person, text string) message {
	p.t.Helper()
	var sent message
	decode(p.t, p.qpq("dm", to.name, text), &sent)
	got := to.read()
	if len(got) != 1 || got[0].Text != text || got[0].From != p.name || got[0].Seq != sent.Seq || got[0].Channel != sent.Channel {
		p.t.Fatalf("%s sent %q as %+v, and %s reads %+v", p.name, text, sent, to.name, got)
	}
	say(p.t, "#%d %s -> %s: %q", sent.Seq, p.name, to.name, text)
	return got[0]
}

func (p person) read() []message {
	p.t.Helper()
	return decodeLines(p.t, p.qpq("read"))
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
}

func decodeLines(t *testing.T, lines string) (list []message) {
	t.Helper()
	d := json.NewDecoder(bytes.NewBufferString(lines))
	for d.More() {
		var m message
		if err := d.Decode(&m); err != nil {
			t.Fatalf("%q: %v", lines, err)
		}
		list = append(list, m)
	}
	return list
}

// arrival is a message and when it was printed.
type arrival struct {
	message
	at time.Time
}

// follower is a running qpq read --follow.
type follower struct {
	t      *testing.T
	cmd    *exec.Cmd
	stderr bytes.Buffer

	mu       sync.Mutex
	arrivals []arrival
	changed  chan struct{} // holds one element when arrivals grew
	ended    chan error
}

func (p person) follow() *follower {
	p.t.Helper()
	f := &follower{t: p.t, cmd: p.command("read", "--follow"), changed: make(chan struct{}, 1), ended: make(chan error, 1)}
	f.cmd.Stderr = &f.stderr
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := f.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go f.collect(out)
	return f
}

func (f *follower) collect(out io.Reader) {
	for s := bufio.NewScanner(out); s.Scan(); {
		a := arrival{at: time.Now()}
		if err := json.Unmarshal(s.Bytes(), &a.message); err != nil {
			a.Text = "unreadable: " + s.Text()
		}
		f.mu.Lock()
		f.arrivals = append(f.arrivals, a)
		f.mu.Unlock()
		select {
		case f.changed <- struct{}{}:
		default:
		}
	}
	f.ended <- f.cmd.Wait()
}

func (f *follower) got() []arrival {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]arrival(nil), f.arrivals...)
}

// await waits for n messages, all in all.
func (f *follower) await(n int, atMost time.Duration) []arrival {
	f.t.Helper()
	late := time.After(atMost)
	for len(f.got()) < n {
		select {
		case <-f.changed:
		case err := <-f.ended:
			f.t.Fatalf("qpq read --follow ended by itself after %d messages: %v: %s", len(f.got()), err, &f.stderr)
		case <-late:
			f.t.Fatalf("%d messages after %v, want %d", len(f.got()), atMost, n)
		}
	}
	return f.got()
}

// stop ends following, politely.
func (f *follower) stop() {
	f.t.Helper()
	if err := f.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		f.t.Fatalf("qpq read --follow is gone: %v: %s", err, &f.stderr)
	}
	select {
	case err := <-f.ended:
		if err != nil {
			f.t.Errorf("qpq read --follow: %v: %s", err, &f.stderr)
		}
	case <-time.After(30 * time.Second):
		f.t.Error("qpq read --follow does not end")
	}
}
