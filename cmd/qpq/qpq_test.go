package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/client"
	"quicproquo.dev/client/keystore"
	"quicproquo.dev/schema/ids"
)

// harness is a program with streams, an environment and a terminal of its own.
type harness struct {
	*program
	out, err bytes.Buffer
	asked    []string
}

func makeProgram(env map[string]string, answers ...string) *harness {
	h := &harness{}
	h.program = &program{stdin: strings.NewReader(""), stdout: &h.out, stderr: &h.err,
		getenv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		prompt: func(question string) ([]byte, error) {
			h.asked = append(h.asked, question)
			if len(h.asked) > len(answers) {
				return nil, errors.New("nobody answers")
			}
			return []byte(answers[len(h.asked)-1]), nil
		}}
	h.ask = h.prompt
	return h
}

func TestVisible(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain ünïcode 🙂":      "plain ünïcode 🙂",
		"a\tb":                 "a\tb",
		"two\nlines":           "two\n    lines",
		"\x1b[2Jgone":          `\x1b[2Jgone`,
		"carriage\rreturn":     `carriage\rreturn`,
		"c1 \u009b31m":         `c1 \u009b31m`,
		"right \u202eto left":  `right \u202eto left`,
		"iso\u2066late":        `iso\u2066late`,
		"line\u2028separator":  `line\u2028separator`,
		"bell\a and del\u007f": `bell\a and del\x7f`,
	} {
		if got := visible(text); got != want {
			t.Errorf("visible(%q) = %q, want %q", text, got, want)
		}
	}
}

// writes counts calls: a line that is written in pieces mixes with others'.
type writes struct {
	bytes.Buffer
	calls int
}

func (w *writes) Write(b []byte) (int, error) {
	w.calls++
	return w.Buffer.Write(b)
}

func TestPrintMessage(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.FixedZone("", 3600))
	good := client.Message{Channel: ids.ID{1}, Seq: 7, From: "alice", Device: ids.ID{2}, DeliveryID: ids.ID{3}, SentAt: at, Text: "<hi>\x1b"}
	bad := good
	bad.Text, bad.Failure = "", &client.Failure{Code: "undecryptable", Message: "no"}
	stranger := good
	stranger.From, stranger.Account = "", ids.ID{9}
	for name, tc := range map[string]struct {
		m           client.Message
		json        bool
		out, stderr string // Parts.
	}{
		"JSON":               {good, true, `"seq":7,"from":"alice","device":"02000000000000000000000000000000","deliveryId":"03000000000000000000000000000000","sentAt":"2026-01-02T02:04:05.678Z","text":"<hi>\u001b"}`, ""},
		"human":              {good, false, `  alice: <hi>\x1b`, ""},
		"stranger":           {stranger, false, "account 09000000000000000000000000000000: ", ""},
		"unshowable, JSON":   {bad, true, "", `"text":"","error":{"code":"undecryptable","message":"no"}}`},
		"unshowable, people": {bad, false, "", "message 7 from alice: no"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, stderr writes
			p := &program{stdout: &out, stderr: &stderr}
			p.flags.json = tc.json
			if err := p.printMessage(tc.m); err != nil {
				t.Fatal(err)
			}
			for _, s := range []struct {
				w    *writes
				want string
			}{{&out, tc.out}, {&stderr, tc.stderr}} {
				got := s.w.String()
				if s.want == "" && got != "" || !strings.Contains(got, s.want) {
					t.Errorf("printed %q, want %q", got, s.want)
				}
				if s.want != "" && (s.w.calls != 1 || strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "\n")) {
					t.Errorf("%q was printed with %d writes", got, s.w.calls)
				}
			}
		})
	}
}

func TestGlobalFlagsStandAnywhere(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--json", "version"}, {"version", "--json"}} {
		h := makeProgram(nil)
		if code := h.run(t.Context(), args); code != exitOK || !json.Valid(h.out.Bytes()) {
			t.Errorf("%v: exit %d, %q", args, code, h.out.String())
		}
	}
}

func TestEnvironmentStandsInForFlags(t *testing.T) {
	t.Parallel()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte("PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"QPQ_PASSPHRASE": "x", "QPQ_CELL": "env:1", "QPQ_PIN": "envpin", "QPQ_PROFILE": "/env"}
	for name, tc := range map[string]struct {
		flags flags
		want  client.Options
	}{
		"environment": {flags{}, client.Options{Endpoint: "env:1", Pin: "envpin", Profile: "/env"}},
		"flags": {flags{cell: "flag:1", pin: "flagpin", profile: "/flag"},
			client.Options{Endpoint: "flag:1", Pin: "flagpin", Profile: "/flag"}},
		"a CA instead of the environment's pin": {flags{ca: ca}, client.Options{Endpoint: "env:1", CA: []byte("PEM"), Profile: "/env"}},
	} {
		h := makeProgram(env)
		h.flags = tc.flags
		o, err := h.options(false)
		if err != nil {
			t.Fatal(err)
		}
		if o.Endpoint != tc.want.Endpoint || o.Pin != tc.want.Pin || string(o.CA) != string(tc.want.CA) || o.Profile != tc.want.Profile ||
			string(o.Passphrase) != "x" {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

func TestPassphrase(t *testing.T) {
	t.Parallel()
	fresh, existing := filepath.Join(t.TempDir(), "fresh"), filepath.Join(t.TempDir(), "existing")
	if _, err := keystore.Create(existing, []byte("x"), keystore.KDF{Time: 1, MemoryKiB: 64, Threads: 1}); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		env     map[string]string
		answers []string
		profile string
		confirm bool
		want    string // Empty: an error.
		asked   int
	}{
		"environment":                    {map[string]string{"QPQ_PASSPHRASE": "env"}, nil, fresh, true, "env", 0},
		"empty environment":              {map[string]string{"QPQ_PASSPHRASE": ""}, nil, fresh, true, "", 0},
		"asked":                          {nil, []string{"a"}, existing, false, "a", 1},
		"asked twice for a new one":      {nil, []string{"a", "a"}, fresh, true, "a", 2},
		"asked twice, two answers":       {nil, []string{"a", "b"}, fresh, true, "", 2},
		"asked once for the profile's":   {nil, []string{"a"}, existing, true, "a", 1},
		"nobody answers":                 {nil, nil, fresh, false, "", 1},
		"nobody answers the second time": {nil, []string{"a"}, fresh, true, "", 2},
	} {
		h := makeProgram(tc.env, tc.answers...)
		got, err := h.passphrase(tc.profile, tc.confirm)
		if string(got) != tc.want || (err == nil) != (tc.want != "") || len(h.asked) != tc.asked {
			t.Errorf("%s: %q, %v, asked %q", name, got, err, h.asked)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		exit int
		want string // A part.
	}{
		"no command, JSON":      {[]string{"--json"}, exitUsage, `{"error":{"code":"usage","message":"give a command; qpq --help lists them","retryable":false}}` + "\n"},
		"no command, people":    {nil, exitUsage, "qpq: give a command; qpq --help lists them\n"},
		"flag behind a bad one": {[]string{"--nope", "--json"}, exitUsage, `"code":"usage"`},
		"no profile":            {[]string{"--json", "whoami"}, exitFailed, `"code":"noProfile"`},
	} {
		h := makeProgram(map[string]string{"QPQ_PASSPHRASE": "x", "QPQ_PROFILE": filepath.Join(t.TempDir(), "none")})
		if code := h.run(t.Context(), tc.args); code != tc.exit || h.out.Len() > 0 || !strings.Contains(h.err.String(), tc.want) {
			t.Errorf("%s: exit %d, %q, %q", name, code, h.out.String(), h.err.String())
		}
	}
}

func TestQueuedIsSaid(t *testing.T) {
	t.Parallel()
	id := ids.New()
	f, exit := describe(&client.QueuedError{DeliveryID: id, Cause: errors.New("x")})
	if exit != exitFailed || f.Queued != id.String() {
		t.Errorf("%+v, exit %d", f, exit)
	}
}

func TestNewPassphraseAndCode(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		env     map[string]string
		answers []string
		want    string // Empty: an error.
		asked   int
	}{
		"environment":       {map[string]string{"QPQ_NEW_PASSPHRASE": "env"}, nil, "env", 0},
		"empty environment": {map[string]string{"QPQ_NEW_PASSPHRASE": ""}, nil, "", 0},
		"asked twice":       {nil, []string{"a", "a"}, "a", 2},
		"two answers":       {nil, []string{"a", "b"}, "", 2},
		"nobody answers":    {nil, []string{"a"}, "", 2},
	} {
		h := makeProgram(tc.env, tc.answers...)
		got, err := h.newPassphrase()
		if string(got) != tc.want || (err == nil) != (tc.want != "") || len(h.asked) != tc.asked {
			t.Errorf("%s: %q, %v, asked %q", name, got, err, h.asked)
		}
	}
	for name, tc := range map[string]struct {
		env   map[string]string
		want  string
		asked int
	}{
		"environment": {map[string]string{"QPQ_CODE": "env"}, "env", 0}, "asked": {nil, "typed", 1},
	} {
		h := makeProgram(tc.env, "typed")
		if got, err := h.code("Code: "); err != nil || got != tc.want || len(h.asked) != tc.asked {
			t.Errorf("%s: %q, %v, asked %q", name, got, err, h.asked)
		}
	}
}

func TestKeyWarningIsNoUnreadableMessage(t *testing.T) {
	t.Parallel()
	var out, stderr writes
	p := &program{stdout: &out, stderr: &stderr}
	err := p.printMessage(client.Message{From: "bob", Account: ids.ID{9}, Failure: &client.Failure{Code: client.FailKeyChanged, Message: "the keys of bob changed"}})
	if err != nil || out.Len() > 0 || stderr.String() != "WARNING  the keys of bob changed; then accept them with qpq trust bob\n" {
		t.Errorf("%v, %q, %q", err, out.String(), stderr.String())
	}
}
