package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quicproquo.dev/cell/server/celltest"
)

// run is the command with arguments: what it printed, and its error.
func runCommand(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := command()
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(&out)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func TestScrubAndKeysStatusFromTheCommandLine(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, bob := c.Signup(t, "alice"), c.Signup(t, "bob")
	bob.Upload(1)
	dm := alice.Create(bob)
	for range 3 {
		if _, err := alice.Conn.Call(dm.Message(t, "what nobody else reads")); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	resume, metrics := filepath.Join(dir, "position"), filepath.Join(dir, "scrub.prom")
	out, err := runCommand(t, "scrub", "--config", c.ConfigFile(), "--rate", "10000/s", "--resume-file", resume, "--metrics-file", metrics)
	if err != nil || !strings.Contains(out, "checked 4 messages") || !strings.Contains(out, " 0 damaged") {
		t.Fatalf("%s, %v", out, err)
	}
	if _, err := os.Stat(resume); !os.IsNotExist(err) {
		t.Errorf("the position stays after a whole scrub: %v", err)
	}
	if b, err := os.ReadFile(metrics); err != nil || !strings.Contains(string(b), "qpq_scrub_damaged 0") {
		t.Errorf("%s, %v", b, err)
	}

	c.Execute(t, `UPDATE messages SET payload = set_byte(payload, 9, get_byte(payload, 9) # 1) WHERE seq = 2`)
	out, err = runCommand(t, "scrub", "--config", c.ConfigFile())
	if err == nil || !strings.Contains(out, "damaged: message 2 of channel "+dm.Channel.String()) {
		t.Errorf("%s, %v", out, err)
	}
	out, err = runCommand(t, "scrub", "--config", c.ConfigFile(), "--json")
	var line struct {
		Damage struct {
			Channel string
			Seq     int
		}
	}
	if first, _, _ := strings.Cut(out, "\n"); err == nil || json.Unmarshal([]byte(first), &line) != nil || line.Damage.Seq != 2 || line.Damage.Channel != dm.Channel.String() {
		t.Errorf("%s, %v", out, err)
	}
	if out, err := runCommand(t, "scrub", "--config", c.ConfigFile(), "--rate", "fast"); err == nil {
		t.Errorf("a rate that is none was taken: %s", out)
	}

	out, err = runCommand(t, "keys", "status", "--config", c.ConfigFile())
	if err != nil || !strings.Contains(out, "first: seals") {
		t.Errorf("%s, %v", out, err)
	}
	out, err = runCommand(t, "keys", "status", "--config", c.ConfigFile(), "--json")
	var keys []struct{ ID, Values int }
	if err != nil || json.Unmarshal([]byte(out), &keys) != nil || len(keys) != 1 || keys[0].Values < 9 {
		t.Errorf("%s, %v", out, err)
	}
}
