package e2elocal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// programDir is where buildQPQ has put the program; empty until then.
var programDir string

// buildQPQ builds the program once.
var buildQPQ = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "qpq")
	if err != nil {
		return "", err
	}
	programDir = dir
	path := filepath.Join(dir, "qpq")
	out, err := exec.Command("go", "build", "-o", path, "quicproquo.dev/cmd/qpq").CombinedOutput() //nolint:gosec // fixed.
	if err != nil {
		return "", fmt.Errorf("building qpq: %w: %s", err, out)
	}
	return path, nil
})

// user runs the qpq program with a profile of its own.
type user struct {
	t       *testing.T
	binary  string
	profile string
	cell    *cell
	env     []string // Besides, or instead of, the usual one.
}

func (c *cell) user() *user {
	c.t.Helper()
	binary, err := buildQPQ()
	if err != nil {
		c.t.Fatal(err)
	}
	return &user{c.t, binary, filepath.Join(c.t.TempDir(), "profile"), c, nil}
}

func (u *user) command(args ...string) *exec.Cmd {
	cmd := exec.Command(u.binary, args...) //nolint:gosec // our own.
	cmd.Env = []string{"QPQ_PASSPHRASE=" + password, "QPQ_PROFILE=" + u.profile, "HOME=" + u.t.TempDir()}
	cmd.Env = append(cmd.Env, u.env...)
	return cmd
}

// run returns the exit code and both outputs.
func (u *user) run(args ...string) (code int, stdout, stderr string) {
	u.t.Helper()
	var out, errs bytes.Buffer
	cmd := u.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		u.t.Fatal(err)
	}
	u.cell.secrets.CheckProgram(u.t, args, out.String()+errs.String())
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// ok runs and expects success; it returns the lines of standard output as JSON objects.
func (u *user) ok(args ...string) []map[string]any {
	u.t.Helper()
	code, out, errs := u.run(args...)
	if code != 0 || errs != "" {
		u.t.Fatalf("qpq %v: exit %d: %s", args, code, errs)
	}
	return objects(u.t, out)
}

func objects(t *testing.T, lines string) (list []map[string]any) {
	t.Helper()
	for l := range strings.Lines(lines) {
		var o map[string]any
		if err := json.Unmarshal([]byte(l), &o); err != nil {
			t.Fatalf("%q is no JSON: %v", l, err)
		}
		list = append(list, o)
	}
	return list
}

func (u *user) signup(name string) *user {
	u.t.Helper()
	u.cell.write("ca.pem", u.cell.ca.CertPEM())
	me := u.ok("--json", "signup", name, "--cell", u.cell.addr, "--ca", u.cell.path("ca.pem"))
	if len(me) != 1 || me[0]["name"] != name || me[0]["cell"] != u.cell.addr {
		u.t.Errorf("signup prints %v", me)
	}
	return u
}

func TestProgram(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.user().signup("alice"), c.user().signup("bob")
	me := alice.ok("whoami", "--json")[0]
	sent := alice.ok("dm", "bob", "hello", "<bob>", "--json")[0]
	if sent["seq"] != 1.0 || sent["bytes"].(float64) < 256 {
		t.Errorf("dm prints %v", sent)
	}
	got := bob.ok("--json", "read")
	if len(got) != 1 {
		t.Fatalf("read prints %v", got)
	}
	for key, want := range map[string]any{"text": "hello <bob>", "from": "alice", "seq": 1.0, "channel": sent["channel"],
		"deliveryId": sent["deliveryId"], "device": me["device"]} {
		if got[0][key] != want {
			t.Errorf("read prints %s %v, want %v", key, got[0][key], want)
		}
	}
	if at := fmt.Sprint(got[0]["sentAt"]); !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`).MatchString(at) {
		t.Errorf("read prints sentAt %s", at)
	}
	if rest := bob.ok("read", "--json"); len(rest) != 0 {
		t.Errorf("read prints %v a second time", rest)
	}
	if code, out, _ := bob.run("dm", "alice", "plain"); code != 0 || !strings.HasPrefix(out, "sent as message 2") {
		t.Errorf("dm for people: exit %d: %q", code, out)
	}
	if _, out, _ := alice.run("read"); !strings.HasSuffix(out, "  bob: plain\n") {
		t.Errorf("read for people: %q", out)
	}
}

func TestProgramErrors(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, nobody := c.user().signup("alice"), c.user()
	other := makeCell(t)
	for name, tc := range map[string]struct {
		user *user
		args []string
		exit int
		code string
	}{
		"no command":     {alice, nil, 2, "usage"},
		"bad command":    {alice, []string{"frobnicate"}, 2, "usage"},
		"bad flag":       {alice, []string{"read", "--frobnicate"}, 2, "usage"},
		"dm without":     {alice, []string{"dm", "bob"}, 2, "usage"},
		"no profile":     {nobody, []string{"read"}, 1, "noProfile"},
		"no cell":        {nobody, []string{"signup", "bob"}, 1, "noCell"},
		"no trust":       {nobody, []string{"signup", "bob", "--cell", c.addr}, 1, "noTrust"},
		"bad pin":        {nobody, []string{"signup", "bob", "--cell", c.addr, "--pin", "12"}, 1, "invalidPin"},
		"wrong pin":      {nobody, []string{"signup", "bob", "--cell", c.addr, "--pin", other.ca.Pin()}, 1, "wrongPin"},
		"wrong CA":       {nobody, []string{"signup", "bob", "--cell", c.addr, "--ca", other.caFile()}, 1, "wrongCA"},
		"missing CA":     {nobody, []string{"signup", "bob", "--cell", c.addr, "--ca", "/nonexistent"}, 2, "usage"},
		"CA and pin":     {nobody, []string{"signup", "bob", "--ca", "x", "--pin", "y"}, 2, "usage"},
		"name taken":     {nobody, []string{"signup", "alice", "--cell", c.addr, "--pin", c.ca.Pin()}, 1, "alreadyExists"},
		"account exists": {alice, []string{"signup", "alice2"}, 1, "accountExists"},
		"no such person": {alice, []string{"dm", "bob", "hi"}, 1, "notFound"},
		"no address":     {alice, []string{"dm", "bob", "hi", "--cell", "nowhere"}, 1, "invalidArgument"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := tc.user.run(append(tc.args, "--json")...)
			if code != tc.exit || out != "" {
				t.Errorf("exit %d with %q, want %d and nothing", code, out, tc.exit)
			}
			list := objects(t, errs)
			if len(list) != 1 {
				t.Fatalf("standard error: %q", errs)
			}
			e, _ := list[0]["error"].(map[string]any)
			if e["code"] != tc.code || e["message"] == "" || e["retryable"] != false {
				t.Errorf("error %v, want code %s", e, tc.code)
			}
		})
	}
}

func (c *cell) caFile() string {
	c.write("ca.pem", c.ca.CertPEM())
	return c.path("ca.pem")
}

// following is a qpq read --follow that runs.
type following struct {
	t      *testing.T
	cmd    *exec.Cmd
	lines  *bufio.Scanner
	stderr *bytes.Buffer
}

func (u *user) follow() *following {
	u.t.Helper()
	f := &following{t: u.t, cmd: u.command("read", "--follow", "--json"), stderr: &bytes.Buffer{}}
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		u.t.Fatal(err)
	}
	f.cmd.Stderr = f.stderr
	f.lines = bufio.NewScanner(out)
	if err := f.cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() { f.cmd.Process.Kill() }) //nolint:errcheck // it may have ended.
	return f
}

func (f *following) expect(text string) map[string]any {
	f.t.Helper()
	if !f.lines.Scan() {
		f.t.Fatalf("read --follow ended: %s", f.stderr)
	}
	o := objects(f.t, f.lines.Text())[0]
	if o["text"] != text {
		f.t.Errorf("read --follow prints %v, want %q", o, text)
	}
	return o
}

// end sends a signal and returns the exit code.
func (f *following) end(signal os.Signal) int {
	f.t.Helper()
	if err := f.cmd.Process.Signal(signal); err != nil {
		f.t.Fatal(err)
	}
	f.cmd.Wait() //nolint:errcheck // the code says it.
	return f.cmd.ProcessState.ExitCode()
}

// TestProgramFollows: qpq read --follow in one terminal, qpq dm in another, on one profile.
func TestProgramFollows(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.user().signup("alice"), c.user().signup("bob")
	f := bob.follow()
	alice.ok("dm", "bob", "one", "--json")
	f.expect("one")
	if sent := bob.ok("dm", "alice", "two", "--json")[0]; sent["seq"] != 2.0 {
		t.Errorf("dm beside read --follow prints %v", sent)
	}
	alice.ok("dm", "bob", "three", "--json")
	if o := f.expect("three"); o["seq"] != 3.0 {
		t.Errorf("the third message is %v", o)
	}
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		if code := f.end(signal); code != 0 || f.stderr.Len() != 0 {
			t.Errorf("%v ends read --follow with exit %d: %s", signal, code, f.stderr)
		}
		alice.ok("dm", "bob", "more", "--json")
		f = bob.follow()
		f.expect("more")
	}
	if got := alice.ok("read", "--json"); len(got) != 1 || got[0]["text"] != "two" {
		t.Errorf("alice reads %v", got)
	}
}

// TestProgramKilled kills qpq read --follow again and again while messages come in. Whatever is printed, nothing is
// lost, and what is printed twice has the same channel and sequence.
func TestProgramKilled(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.user().signup("alice"), c.user().signup("bob")
	const n = 40
	sending := make(chan struct{})
	go func() {
		defer close(sending)
		for i := range n {
			if code, _, errs := alice.run("dm", "bob", fmt.Sprint(i)); code != 0 {
				t.Errorf("dm: %s", errs)
			}
		}
	}()
	texts := map[float64]any{}
	note := func(lines string) {
		for _, o := range objects(t, lines) {
			seq := o["seq"].(float64)
			if before, ok := texts[seq]; ok && before != o["text"] {
				t.Errorf("sequence %v is %v and %v", seq, before, o["text"])
			}
			texts[seq] = o["text"]
		}
	}
	for running := true; running; {
		select {
		case <-sending:
			running = false
		default:
		}
		note(bob.killedRead(300 * time.Millisecond))
	}
	_, out, errs := bob.run("read", "--json")
	if errs != "" {
		t.Errorf("the last read: %s", errs)
	}
	note(out)
	for i := range n {
		if texts[float64(i+1)] != fmt.Sprint(i) {
			t.Errorf("sequence %d is %v", i+1, texts[float64(i+1)])
		}
	}
}

// killedRead follows for a while, kills the process, and returns the whole lines it printed.
func (u *user) killedRead(after time.Duration) string {
	u.t.Helper()
	var out, errs bytes.Buffer
	cmd := u.command("read", "--follow", "--json")
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	time.Sleep(after)
	cmd.Process.Kill() //nolint:errcheck // Wait tells.
	cmd.Wait()         //nolint:errcheck // it was killed.
	if errs.Len() > 0 {
		u.t.Errorf("read --follow before it was killed: %s", &errs)
	}
	whole := out.String()
	return whole[:strings.LastIndexByte(whole, '\n')+1]
}

func TestProgramReadsStandardInput(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.user().signup("alice"), c.user().signup("bob")
	text := strings.Repeat("long ", 100_000)
	cmd := alice.command("dm", "bob", "-")
	cmd.Stdin = strings.NewReader(text + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("dm -: %v: %s", err, out)
	}
	if got := bob.ok("read", "--json"); len(got) != 1 || got[0]["text"] != text {
		t.Errorf("bob reads %d messages", len(got))
	}
}
