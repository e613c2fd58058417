package server_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/cell/server"
	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/schema/wire"
)

// rotate puts a new sealing key in front of the others of a keys file, or drops all but the first.
func rotate(t *testing.T, c *celltest.Cell, change func(*cellkeys.Keys)) {
	t.Helper()
	k, err := cellkeys.Load(c.KeysFile())
	must(t, err)
	change(k)
	c.WriteKeys(t, k)
}

func newFirst(k *cellkeys.Keys) {
	fresh := cellkeys.Generate().Sealing[0]
	fresh.ID = k.Sealing[0].ID + 1
	k.Sealing = append([]cellkeys.Key{fresh}, k.Sealing...)
}

func onlyFirst(k *cellkeys.Keys) { k.Sealing = k.Sealing[:1] }

// Key rotation without downtime: replicas with the old and the new file serve side by side, whichever comes first, and each opens
// what the other seals; then everything is sealed anew, and the old key is dropped.
func TestSealingKeysRotateWithoutDowntime(t *testing.T) {
	t.Parallel()
	one := celltest.New(t, celltest.Unlimited())
	two := one.Replica(t)
	accounts := []*celltest.Person{one.Signup(t, "alice"), two.Signup(t, "bob")}
	serves := func(when string, cells ...*celltest.Cell) {
		t.Helper()
		for _, c := range cells {
			name := strings.ReplaceAll(when, " ", "-") + c.Addr[strings.LastIndex(c.Addr, ":")+1:]
			accounts = append(accounts, c.Signup(t, name))
		}
		for _, c := range cells {
			for _, p := range accounts {
				conn := c.Dial(t)
				if _, err := p.LoginOn(conn, p.Name, p.Password); err != nil {
					t.Errorf("%s: %s cannot log in: %v", when, p.Name, err)
				}
				conn.Close()
			}
		}
	}
	serves("old", one, two)
	rotate(t, one, newFirst)
	one.Stop(t) // The first gets the new file while the second has the old one.
	serves("alone", two)
	one.Start(t)
	serves("mixed", one, two)
	old := func() (n int64) {
		list, err := server.SealingKeys(t.Context(), one.Config(t))
		must(t, err)
		for _, k := range list {
			if !k.InFile {
				t.Fatalf("values under key %d, which no file has", k.ID)
			}
			if k.ID == 1 {
				n = k.Values
			}
		}
		return n
	}
	if old() == 0 {
		t.Fatal("nothing is under the old key: this test has lost its meaning")
	}
	two.Stop(t)
	two.Start(t)
	serves("new", one, two)

	one.Execute(t, `UPDATE sealing_processes SET seen_at = seen_at - interval '1 hour' WHERE key_ids = '{1}'`)
	st, err := server.OpenStore(t.Context(), one.Config(t))
	must(t, err)
	defer st.Close()
	for end := time.Now().Add(celltest.Patience); old() > 0; time.Sleep(50 * time.Millisecond) {
		_, err := st.Reseal(t.Context(), 0) // As servers do at their pace.
		must(t, err)
		if time.Now().After(end) {
			t.Fatalf("%d values stay under the old key", old())
		}
	}
	serves("resealed", one, two)

	rotate(t, one, onlyFirst)
	if s, err := server.Start(t.Context(), one.Config(t), server.Release{Name: "cell", Version: "test"}, one.Logger()); err == nil || !strings.Contains(err.Error(), "put it back behind the first key") {
		if s != nil {
			_ = s.Stop(t.Context())
		}
		t.Errorf("a start without a key that was in use a moment ago: %v", err)
	}
	one.Execute(t, `UPDATE sealing_keys SET sealed_at = sealed_at - interval '1 hour' WHERE key_id = 1`)
	done, err := st.Reseal(t.Context(), 0)
	must(t, err)
	if len(done.Retired) != 1 {
		t.Fatalf("%+v", done)
	}
	one.Stop(t)
	one.Start(t)
	serves("without-the-old-key", one)
}

// Durability is checked, not assumed.
func TestDurabilityIsCheckedAndTold(t *testing.T) {
	t.Parallel()
	c := celltest.New(t) // On a database without fsync.
	var d store.Durability
	must(t, json.Unmarshal([]byte(c.Ops(t, "/durability")), &d))
	if !d.Reduced || len(d.Problems) < 2 || d.SynchronousCommit != "on" || c.Metric(t, "qpq_durability_reduced") != 1 {
		t.Errorf("%+v", d)
	}
	for _, p := range d.Problems {
		if p.Setting != "fsync" && p.Setting != "full_page_writes" || !strings.Contains(p.Message, "set "+p.Setting+" = on") {
			t.Errorf("%+v", p)
		}
	}
	if !strings.Contains(c.Log.String(), "durability is reduced") {
		t.Error("the log does not say so")
	}
}

// Whatever default a role or a database has: an acknowledgement waits for the disk.
func TestACommitWaitsForTheDiskWhateverTheRolesDefault(t *testing.T) {
	t.Parallel()
	c := celltest.Prepare(t)
	c.Execute(t, "ALTER DATABASE "+c.Query(t, "SELECT current_database()")+" SET synchronous_commit = off")
	c.Start(t)
	var d store.Durability
	must(t, json.Unmarshal([]byte(c.Ops(t, "/durability")), &d))
	if d.SynchronousCommit != "on" {
		t.Errorf("the sessions that store messages have synchronous_commit = %s", d.SynchronousCommit)
	}
	alice, bob, from, to := pair(t, c)
	celltest.Must[*wire.EnqueueResponse](alice.Conn, from.Message(t, "x"))
	if got := to.Read(t, deliveryOf(t, bob)); got != "x" {
		t.Error(got)
	}
}
