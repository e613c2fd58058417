package contract

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/server"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/client/conn"
	"quicproquo.dev/controllers/podcheck"
	"quicproquo.dev/controllers/resources"
	"quicproquo.dev/internal/admintoken"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/internal/embeddedpg/pgtest"
	"quicproquo.dev/internal/pki"
	"quicproquo.dev/schema/wire"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// The configuration that the operator writes is one that the cell reads, field
// by field.
func TestConfigurationIsTheCells(t *testing.T) {
	t.Parallel()
	cm, err := resources.Config(loadCell(t, "{access: {clientCASecretRef: {name: client-ca}}, database: {secretRef: {name: own}, pooling: transaction}}"))
	if err != nil {
		t.Fatal(err)
	}
	var c server.Config
	if err := yaml.UnmarshalStrict([]byte(cm.Data[resources.ConfigKey]), &c); err != nil {
		t.Fatal(err)
	}
	if c.Version != server.Version {
		t.Errorf("version %q, the cell reads %q", c.Version, server.Version)
	}
	fields := reflect.TypeOf(c)
	for i := range fields.NumField() {
		f := fields.Field(i)
		if f.IsExported() && reflect.ValueOf(c).Field(i).IsZero() {
			t.Errorf("the operator leaves out %s", f.Tag.Get("json"))
		}
	}
	if c.DatabasePooling != store.PoolingTransaction {
		t.Errorf("the cell is told of pooling %q", c.DatabasePooling)
	}
	for address, port := range map[string]int{c.Listen: resources.QUICPort, c.OpsListen: resources.OpsPort} {
		if _, got, _ := net.SplitHostPort(address); got != strconv.Itoa(port) {
			t.Errorf("the cell listens on %s, its pod has port %d", address, port)
		}
	}
	drain, err := time.ParseDuration(c.DrainTimeout)
	pod := resources.Servers(loadCell(t, "{}"), resources.ServersOptions{}).Spec.Template.Spec
	// After the drain come five seconds for the ops port, and the last commit.
	if grace := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second; err != nil || grace < drain+10*time.Second {
		t.Errorf("a drain of %s in a grace period of %s", c.DrainTimeout, grace)
	}
}

// running is a cell that runs on what the operator built.
type running struct {
	*objects
	root  string
	cell  *v1alpha1.MessagingCell
	ca    *pki.CA
	check podcheck.Pods
}

func run(t *testing.T, cell *v1alpha1.MessagingCell, others ...any) *running {
	t.Helper()
	database := pgtest.New(t)
	if transactionPooling(cell) {
		database = pgtest.Pooler(t, database)
	}
	r := &running{objects: build(t, cell, database), root: t.TempDir(), cell: cell}
	r.add(others...)
	keys, err := cellkeys.Generate().Marshal()
	must(t, err)
	r.ca, err = pki.NewCA("contract", time.Now(), time.Hour)
	must(t, err)
	key, err := r.ca.KeyPEM()
	must(t, err)
	r.add(resources.Keys(cell, keys), resources.CAPair(cell, r.ca.CertPEM(), key))
	r.issue(t, "demo.chat.svc")

	log := slog.New(slog.DiscardHandler)
	job := resources.Migration(cell, "cell", "key").Spec.Template.Spec
	must(t, server.Migrate(t.Context(), r.load(t, r.mount(t, t.TempDir(), job)), log))
	r.prune(t)
	config := r.load(t, r.mountServer(t))
	config.Listen, config.OpsListen = "127.0.0.1:0", "127.0.0.1:0"
	s, err := server.Start(t.Context(), config, server.Release{Name: "cell", Version: "test"}, log)
	must(t, err)
	t.Cleanup(func() { must(t, s.Stop(context.Background())) })
	r.check = podcheck.Pods{QUICPort: port(t, s.Addr()), OpsPort: port(t, s.OpsAddr())}
	return r
}

// prune opens the audit log with what the daily Job has: as long as the policy
// says is how long it keeps.
func (r *running) prune(t *testing.T) {
	t.Helper()
	pod := resources.AuditPruning(r.cell, "cell").Spec.JobTemplate.Spec.Template.Spec
	c := pod.Containers[0]
	if !slices.Equal(c.Args[:3], []string{"audit", "prune", "--config"}) {
		t.Fatalf("the Job runs %q", c.Args)
	}
	pod.Containers[0].Args = c.Args[1:] // The configuration's place, for mount.
	a, err := server.OpenAudit(t.Context(), r.load(t, r.mount(t, t.TempDir(), pod)))
	must(t, err)
	defer a.Store.Close()
	kept, err := a.Retention()
	must(t, err)
	if want := r.cell.Spec.Retention.Audit.Duration; kept != want || want == 0 {
		t.Errorf("events are kept for %s, the cell says %s", kept, want)
	}
	_, _, err = a.Store.PruneAudit(t.Context(), time.Now().Add(-kept), time.Now())
	must(t, err)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func port(t *testing.T, address net.Addr) int {
	t.Helper()
	_, text, err := net.SplitHostPort(address.String())
	must(t, err)
	n, err := strconv.Atoi(text)
	must(t, err)
	return n
}

func (r *running) load(t *testing.T, path string) *server.Config {
	t.Helper()
	config, err := server.LoadConfig(path)
	must(t, err)
	config.DrainTimeout = "0s"
	return config
}

func (r *running) mountServer(t *testing.T) string {
	t.Helper()
	return r.mount(t, r.root, resources.Servers(r.cell, resources.ServersOptions{Image: "cell"}).Spec.Template.Spec)
}

func (r *running) issue(t *testing.T, hosts ...string) {
	t.Helper()
	chain, key, err := r.ca.IssueServer(hosts, time.Now(), time.Hour)
	must(t, err)
	r.add(resources.TLS(r.cell, chain, key))
}

// presents reports whether the running cell's chain is good for a host.
func (r *running) presents(t *testing.T, host string) error {
	t.Helper()
	pin, err := pki.ParsePin(r.ca.Pin())
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	chain, err := r.check.Chain(ctx, "127.0.0.1", host)
	if err != nil {
		return err
	}
	return pki.VerifyPinned(chain, pin, host, time.Now())
}

func (r *running) policyHash(t *testing.T) string {
	t.Helper()
	hash, err := r.check.Policy(t.Context(), "127.0.0.1")
	must(t, err)
	return hash
}

// The real cell migrates and serves with what the operator builds, and tells
// the operator what it uses. New files replace old ones while it runs.
func TestCellRunsOnWhatTheOperatorBuilds(t *testing.T) {
	t.Parallel()
	r := run(t, loadCell(t, "{limits: {requestsPerSecond: 7}}"))
	if got, want := r.policyHash(t), hashOf(t, r.cell); got != want {
		t.Errorf("the cell uses policy %s, the operator published %s", got, want)
	}
	must(t, r.presents(t, "demo.chat.svc"))
	if err := r.presents(t, "192.0.2.1"); err == nil {
		t.Error("the certificate is good for an address that it does not name")
	}

	changed := loadCell(t, "{limits: {requestsPerSecond: 8}}")
	file, err := resources.PolicyFile(changed)
	must(t, err)
	r.add(resources.Policy(changed, file))
	r.issue(t, "demo.chat.svc", "192.0.2.1")
	r.mountServer(t)
	must(t, eventually(func() error {
		if got, want := r.policyHash(t), hashOf(t, changed); got != want {
			return fmt.Errorf("the cell uses policy %s, want %s", got, want)
		}
		return r.presents(t, "192.0.2.1")
	}))
}

// A cell that asks everybody for a certificate takes those of the CAs that the
// spec names, and still tells the operator, who has none, what it uses. The
// operator's tokens are good for it.
func TestCellTakesTheCAsAndTokensOfTheOperator(t *testing.T) {
	t.Parallel()
	clients, err := pki.NewCA("clients", time.Now(), time.Hour)
	must(t, err)
	for kind, other := range map[string]any{
		"Secret":    &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "trust"}, Data: map[string][]byte{"bundle.pem": clients.CertPEM()}},
		"ConfigMap": &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "trust"}, Data: map[string]string{"bundle.pem": string(clients.CertPEM())}},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := run(t, loadCell(t, "{access: {clientCertificates: required, clientCA"+kind+"Ref: {name: trust, key: bundle.pem}, admins: [{name: ops, role: auditor}]}}"), other)
			must(t, r.presents(t, "demo.chat.svc"))
			if got, want := r.policyHash(t), hashOf(t, r.cell); got != want {
				t.Errorf("the cell uses policy %s, the operator published %s", got, want)
			}
			trust, err := conn.TrustPin(r.ca.Pin())
			must(t, err)
			options := conn.Options{Endpoint: net.JoinHostPort("127.0.0.1", strconv.Itoa(r.check.QUICPort)), Trust: trust}
			r.issue(t, "127.0.0.1")
			r.mountServer(t)
			must(t, eventually(func() error { return r.presents(t, "127.0.0.1") }))
			var refused *conn.CertificateError
			if c, err := conn.Dial(t.Context(), options); !errors.As(err, &refused) {
				t.Errorf("without a certificate: %v, %v", c, err)
			}
			cert, key, err := clients.IssueClient("ops", nil, time.Now(), time.Hour)
			must(t, err)
			pair, err := tls.X509KeyPair(cert, key)
			must(t, err)
			options.Certificate = &pair
			for token, want := range map[string]wire.AdminRole{"": wire.AdminRoleAuditor, r.adminToken(t): wire.AdminRoleCellAdmin} {
				c, err := conn.Dial(t.Context(), options)
				must(t, err)
				s, err := conn.Call[*wire.AdminSession](t.Context(), c, &wire.AdminAuthenticateRequest{Token: []byte(token)})
				if err != nil || s.Role != want {
					t.Errorf("%+v, %v", s, err)
				}
				c.Close()
			}
		})
	}
}

// adminToken mints one as the operator does.
func (r *running) adminToken(t *testing.T) string {
	t.Helper()
	keys, err := cellkeys.Parse(r.secrets[resources.KeysName(r.cell)].Data[resources.KeysKey])
	must(t, err)
	tokens, err := admintoken.New(keys.Tokens)
	must(t, err)
	token, err := tokens.Mint(admintoken.CellAdmin, "demo-admin/token", time.Now(), time.Hour)
	must(t, err)
	return string(token)
}

func hashOf(t *testing.T, cell *v1alpha1.MessagingCell) string {
	t.Helper()
	file, err := resources.PolicyFile(cell)
	must(t, err)
	p, err := policy.Parse(file)
	must(t, err)
	return p.Hash()
}

// eventually waits for what the cell does every ten seconds.
func eventually(holds func() error) error {
	deadline := time.Now().Add(40 * time.Second)
	for {
		err := holds()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// A server that is not there is an error, in time, and never a verdict.
func TestPodcheckOfNobody(t *testing.T) {
	t.Parallel()
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	defer silent.Close()
	check := podcheck.Pods{QUICPort: port(t, silent.LocalAddr()), OpsPort: 1}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if chain, err := check.Chain(ctx, "127.0.0.1", "demo"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("chain %v, error %v", chain, err)
	}
	if hash, err := check.Policy(t.Context(), "127.0.0.1"); err == nil {
		t.Errorf("hash %q", hash)
	}
}

// The embedded database's image is told what its entrypoint asks for.
func TestPostgresImageIsTold(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("../../hack/images/postgres/entrypoint.sh")
	must(t, err)
	c := resources.Postgres(loadCell(t, "{}"), resources.PostgresOptions{}).Spec.Template.Spec.Containers[0]
	for _, v := range c.Env {
		if !strings.Contains(string(script), v.Name) {
			t.Errorf("the entrypoint knows no %s", v.Name)
		}
	}
}
