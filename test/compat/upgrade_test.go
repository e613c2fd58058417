package compat

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/internal/embeddedpg/pgtest"
	"quicproquo.dev/schema/wire"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// previous is the previous release's cell, running on the files and the database of this release's.
type previous struct {
	*celltest.Cell
	cmd *exec.Cmd
}

// startPrevious starts it with a policy of defaults: one that it knows.
func startPrevious(t *testing.T, c *celltest.Cell) *previous {
	t.Helper()
	program := previousCell(t)
	c.Config(t)
	config, err := os.ReadFile(c.ConfigFile())
	must(t, err)
	policy := filepath.Join(c.Dir, "previous-policy.yaml")
	must(t, os.WriteFile(policy, []byte("version: quicproquo.dev/policy/v1\n"), 0o600))
	config = regexp.MustCompile(`(?m)^policyFile: .*$`).ReplaceAll(config, []byte("policyFile: "+policy))
	config = regexp.MustCompile(`(?m)^listen: .*$`).ReplaceAll(config, []byte("listen: 127.0.0.1:0"))
	file := filepath.Join(c.Dir, "previous.yaml")
	must(t, os.WriteFile(file, config, 0o600))

	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, "serve", "--config", file) //nolint:gosec // The previous release.
	log, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	ready := make(chan string, 1)
	go readLog(t, bufio.NewScanner(log), ready)
	select {
	case addr, ok := <-ready:
		if !ok {
			t.Fatal("the previous release does not start on this release's schema")
		}
		return &previous{c.At(addr), cmd}
	case <-time.After(celltest.Patience):
		t.Fatal("the previous release was not ready in time")
	}
	return nil
}

// readLog finds the address that is listened on, and errors.
func readLog(t *testing.T, lines *bufio.Scanner, ready chan<- string) {
	defer close(ready)
	for lines.Scan() {
		var line struct{ Level, Msg, Quic string }
		if json.Unmarshal(lines.Bytes(), &line) != nil || line.Level == "ERROR" {
			t.Errorf("the previous release says: %s", lines.Text())
		}
		if line.Quic != "" {
			ready <- line.Quic
		}
	}
}

// stop ends it as Kubernetes does.
func (p *previous) stop(t *testing.T) {
	t.Helper()
	must(t, p.cmd.Process.Signal(syscall.SIGTERM))
	must(t, p.cmd.Wait())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func delivery(t *testing.T, p *celltest.Person) *wire.Delivery {
	t.Helper()
	for {
		switch d := p.Conn.Push().(type) {
		case *wire.Delivery:
			celltest.Must[*wire.Done](p.Conn, &wire.AckRequest{Acks: []wire.Ack{{ChannelID: d.ChannelID, Seq: d.Seq}}})
			return d
		case *wire.CaughtUp:
		default:
			t.Fatalf("a %T", d)
		}
	}
}

// The previous release's queries run on the new schema: both releases serve one database, each what the other
// has stored; then the new one alone.
func TestThePreviousReleaseServesOnThisReleasesSchemaBesideThisOne(t *testing.T) {
	t.Parallel()
	here := celltest.New(t, celltest.WithDatabase(pgtest.New(t, pgtest.Durable())), celltest.Unlimited()) // A cell that may lose what it has says so as an error.
	there := startPrevious(t, here)
	cells := map[string]*celltest.Cell{"this release": here, "the previous release": there.Cell}

	people := map[string]*celltest.Person{}
	for where, c := range cells {
		name := map[string]string{"this release": "alice", "the previous release": "bob"}[where]
		people[name] = c.Signup(t, name)
		people[name].Upload(2)
	}
	for where, c := range cells { // Everybody logs in everywhere.
		for _, p := range people {
			if _, err := p.LoginOn(c.Dial(t), p.Name, p.Password); err != nil {
				t.Errorf("%s logs in at %s: %v", p.Name, where, err)
			}
		}
	}
	alice, bob := people["alice"], people["bob"]
	for _, p := range people {
		celltest.Must[*wire.SubscribeResponse](p.Conn, &wire.SubscribeRequest{})
	}
	fromAlice := alice.Create(bob) // A channel that this release makes, and one that the previous does.
	toBob := bob.Join(delivery(t, bob))
	carol, dave := here.Signup(t, "carol"), there.Signup(t, "dave")
	carol.Upload(1)
	celltest.Must[*wire.SubscribeResponse](carol.Conn, &wire.SubscribeRequest{})
	fromDave := dave.Create(carol)
	toCarol := carol.Join(delivery(t, carol))
	for i := range 5 {
		text := fmt.Sprint("message ", i)
		exchange(t, alice, bob, fromAlice, toBob, text)
		exchange(t, dave, carol, fromDave, toCarol, text)
	}
	retried := fromAlice.Message(t, "the same at both")
	first := celltest.Must[*wire.EnqueueResponse](alice.Conn, retried)
	alice.Reconnect(there.Cell)
	if again := celltest.Must[*wire.EnqueueResponse](alice.Conn, retried); !again.Duplicate || again.Seq != first.Seq {
		t.Errorf("a retry at the previous release: %+v after %+v", again, first)
	}
	toBob.Read(t, delivery(t, bob))

	there.stop(t)
	alice.Reconnect(here)
	bob.Reconnect(here)
	dave.Reconnect(here)
	celltest.Must[*wire.SubscribeResponse](bob.Conn, &wire.SubscribeRequest{})
	exchange(t, alice, bob, fromAlice, toBob, "this release alone")
	exchange(t, dave, carol, fromDave, toCarol, "this release alone")
}

func exchange(t *testing.T, from, to *celltest.Person, sender, receiver *celltest.DM, text string) {
	t.Helper()
	sent := celltest.Must[*wire.EnqueueResponse](from.Conn, sender.Message(t, text))
	for {
		d := delivery(t, to)
		if d.ChannelID != sender.Channel || d.Seq < sent.Seq {
			continue // A Welcome, or one that was acknowledged and not yet written down.
		}
		if got := receiver.Read(t, d); got != text || d.Seq != sent.Seq {
			t.Fatalf("%q at %d, want %q at %d", got, d.Seq, text, sent.Seq)
		}
		return
	}
}
