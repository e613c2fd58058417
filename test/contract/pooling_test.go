package contract

import (
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/cell/server"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/client"
	"quicproquo.dev/client/keystore"
)

func transactionPooling(cell *v1alpha1.MessagingCell) bool {
	return cell.Spec.Database.Pooling == v1alpha1.DatabasePoolingTransaction
}

// Behind a pooler in transaction mode the migration and the daily pruning (in
// run), the servers and their people, a count of sealed values and a scrub all
// get by with what the operator builds.
func TestCellRunsBehindATransactionPooler(t *testing.T) {
	t.Parallel()
	r := run(t, loadCell(t, "{database: {secretRef: {name: own}, pooling: transaction}}"))
	if got, want := r.policyHash(t), hashOf(t, r.cell); got != want {
		t.Errorf("the cell uses policy %s, the operator published %s", got, want)
	}
	problems, err := r.check.Durability(t.Context(), "127.0.0.1")
	must(t, err)
	if !strings.Contains(problems, "set fsync = on") { // Tests' databases are fast instead.
		t.Errorf("of durability it says %q", problems)
	}
	config := r.load(t, r.mountServer(t))
	if config.DatabasePooling != store.PoolingTransaction {
		t.Fatalf("servers are told of pooling %q", config.DatabasePooling)
	}
	r.talk(t)
	keys, err := server.SealingKeys(t.Context(), config)
	must(t, err)
	if len(keys) != 1 || !keys[0].First || keys[0].Values == 0 {
		t.Errorf("sealing keys are %+v", keys)
	}
	st, err := server.OpenStore(t.Context(), config)
	must(t, err)
	defer st.Close()
	report, err := st.Scrub(t.Context(), store.Scrub{})
	must(t, err)
	if report.Damaged > 0 || report.Sealed == 0 || report.Messages == 0 {
		t.Errorf("scrubbed %+v", report)
	}
}

// talk has two people sign up, and one write to the other.
func (r *running) talk(t *testing.T) {
	t.Helper()
	r.issue(t, "127.0.0.1")
	r.mountServer(t)
	must(t, eventually(func() error { return r.presents(t, "127.0.0.1") }))
	people := map[string]*client.Client{}
	for _, name := range []string{"alice", "bob"} {
		c, err := client.Signup(t.Context(), client.Options{
			Profile: filepath.Join(t.TempDir(), name), Passphrase: []byte("a passphrase"), KDF: keystore.KDF{Time: 1, MemoryKiB: 64, Threads: 1},
			Endpoint: net.JoinHostPort("127.0.0.1", strconv.Itoa(r.check.QUICPort)), Pin: r.ca.Pin(),
		}, name)
		must(t, err)
		defer c.Close()
		people[name] = c
	}
	_, err := people["alice"].SendDM(t.Context(), "bob", "hello")
	must(t, err)
	var got []string
	must(t, people["bob"].Read(t.Context(), false, func(m client.Message) error {
		got = append(got, m.Text)
		return nil
	}))
	if len(got) != 1 || got[0] != "hello" {
		t.Errorf("bob read %q", got)
	}
}
