package admin

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/internal/admintoken"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/internal/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func token(t *testing.T, role admintoken.Role) string {
	t.Helper()
	keys, err := admintoken.New([]cellkeys.Key{{ID: 1, Key: make([]byte, 32)}})
	must(t, err)
	b, err := keys.Mint(role, "test", time.Now(), time.Hour)
	must(t, err)
	return admintoken.Format(b)
}

var pin = strings.Repeat("0a", 32)

// unknown is what a cluster answers that has no such kind.
const unknown = "unknown"

// api is a cluster with what a test puts into it, by path.
type api map[string]any

func (a api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	object, ok := a[r.URL.Path]
	if !ok {
		name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		object = apierrors.NewNotFound(schema.GroupResource{}, name)
	}
	if object == unknown {
		http.NotFound(w, r)
		return
	}
	if status, ok := object.(*apierrors.StatusError); ok {
		status.ErrStatus.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
		w.WriteHeader(int(status.ErrStatus.Code))
		object = status.ErrStatus
	}
	_ = json.NewEncoder(w).Encode(object)
}

// serve starts it and returns a kubeconfig whose namespace is "chat".
func (a api) serve(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(a)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return write(t, "kubeconfig", `{apiVersion: v1, kind: Config, current-context: test,
		contexts: [{name: test, context: {cluster: test, user: test, namespace: chat}}, {name: other, context: {cluster: test, user: test}}],
		clusters: [{name: test, cluster: {server: "`+s.URL+`"}}], users: [{name: test, user: {token: x}}]}`)
}

const (
	cells   = "/apis/messaging.quicproquo.dev/v1alpha1/namespaces/chat/messagingcells"
	secrets = "/api/v1/namespaces/chat/secrets/"
)

func makeCell(name string, status v1alpha1.MessagingCellStatus) *v1alpha1.MessagingCell {
	return &v1alpha1.MessagingCell{TypeMeta: metav1.TypeMeta{APIVersion: "messaging.quicproquo.dev/v1alpha1", Kind: "MessagingCell"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "chat"}, Status: status}
}

func listOf(cells ...*v1alpha1.MessagingCell) *v1alpha1.MessagingCellList {
	l := &v1alpha1.MessagingCellList{TypeMeta: metav1.TypeMeta{APIVersion: "messaging.quicproquo.dev/v1alpha1", Kind: "MessagingCellList"}}
	for _, c := range cells {
		l.Items = append(l.Items, *c)
	}
	return l
}

func makeSecret(data map[string]string) *corev1.Secret {
	s := &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, Data: map[string][]byte{}}
	for key, value := range data {
		s.Data[key] = []byte(value)
	}
	return s
}

func forbidden() error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "demo-admin", nil)
}

// What a person is told who cannot get as far as the cell.
func TestTheWayByTheCluster(t *testing.T) {
	t.Parallel()
	ready := makeCell("demo", v1alpha1.MessagingCellStatus{Endpoint: "192.0.2.1:4201", Pin: pin})
	early := makeCell("demo", v1alpha1.MessagingCellStatus{Conditions: []metav1.Condition{{Type: "Ready", Status: "False", Message: "waits for the database"}}})
	unpinned := makeCell("demo", v1alpha1.MessagingCellStatus{Endpoint: "192.0.2.1:4201"})
	ca, err := pki.NewCA("test", time.Now(), time.Hour)
	must(t, err)
	good := makeSecret(map[string]string{"token": token(t, admintoken.CellAdmin), "auditor-token": token(t, admintoken.Auditor)})
	published := &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, Data: map[string]string{"ca.crt": string(ca.CertPEM())}}
	for name, x := range map[string]struct {
		api   api
		flags flags
		want  string // Part of the error; "" is found.
	}{
		"by name":            {api{cells + "/demo": ready, secrets + "demo-admin": good}, flags{cell: "demo"}, ""},
		"the only one":       {api{cells: listOf(ready), secrets + "demo-admin": good}, flags{}, ""},
		"as an auditor":      {api{cells: listOf(ready), secrets + "demo-admin": good}, flags{auditor: true}, ""},
		"by a published CA":  {api{cells: listOf(unpinned), secrets + "demo-admin": good, "/api/v1/namespaces/chat/configmaps/demo-ca": published}, flags{}, ""},
		"elsewhere":          {api{cells: listOf(early), secrets + "demo-admin": good}, flags{endpoint: "127.0.0.1:1", pin: pin}, ""},
		"none of that name":  {api{}, flags{cell: "demo"}, "no MessagingCell demo in namespace chat; kubectl get messagingcells -A"},
		"none":               {api{cells: listOf()}, flags{}, "no MessagingCell in namespace chat; name another with -n"},
		"several":            {api{cells: listOf(makeCell("b", ready.Status), makeCell("a", ready.Status))}, flags{}, "name one with --cell (a, b)"},
		"no such kind, list": {api{cells: unknown}, flags{}, "install the operator"},
		"no such kind, get":  {api{cells + "/demo": unknown}, flags{cell: "demo"}, "install the operator"},
		"not ready":          {api{cells + "/demo": early}, flags{cell: "demo"}, "has no endpoint yet (waits for the database)"},
		"no pin":             {api{cells + "/demo": unpinned}, flags{cell: "demo"}, "has no pin: give its CA's certificate with --ca FILE"},
		"no Secret":          {api{cells + "/demo": ready}, flags{cell: "demo"}, "no Secret demo-admin in namespace chat: the operator makes it"},
		"may not read it":    {api{cells + "/demo": ready, secrets + "demo-admin": forbidden()}, flags{cell: "demo"}, "may not get secret demo-admin in namespace chat"},
		"may not look":       {api{cells: forbidden()}, flags{}, "may not list messagingcells"},
		"not logged in":      {api{cells: apierrors.NewUnauthorized("no")}, flags{}, "log in to it"},
		"no key":             {api{cells + "/demo": ready, secrets + "demo-admin": makeSecret(map[string]string{"token": "x"})}, flags{cell: "demo", auditor: true}, "has no key auditor-token"},
		"a damaged token":    {api{cells + "/demo": ready, secrets + "demo-admin": makeSecret(map[string]string{"token": "x"})}, flags{cell: "demo"}, "Secret demo-admin in namespace chat: this is not an admin token"},
		"another context":    {api{}, flags{cell: "demo", context: "other"}, "in namespace default"},
		"another namespace":  {api{}, flags{cell: "demo", namespace: "team"}, "in namespace team"},
		"no such context":    {api{}, flags{context: "none"}, "context was not found for specified context: none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := x.flags
			f.kubeconfig = x.api.serve(t)
			got, err := f.resolve(t.Context())
			if x.want != "" {
				if err == nil || !strings.Contains(err.Error(), x.want) {
					t.Errorf("%v, want %q", err, x.want)
				}
				return
			}
			must(t, err)
			want := "192.0.2.1:4201"
			if f.endpoint != "" {
				want = f.endpoint
			}
			key := map[bool]string{false: "token", true: "auditor-token"}[f.auditor]
			if got.endpoint != want || admintoken.Format(got.token) != string(good.Data[key]) {
				t.Errorf("%s, token %v", got.endpoint, admintoken.Format(got.token) == string(good.Data["token"]))
			}
		})
	}
}

func TestTheWayByAConnection(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(name, content string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	admin := in("admin-token", token(t, admintoken.CellAdmin)+"\n")
	auditor := in("auditor-token", token(t, admintoken.Auditor)+"\n")
	good := in("connection.json", `{"endpoint": "127.0.0.1:4201", "pin": "`+pin+`", "adminTokenFile": "`+admin+`"}`)
	for _, isAuditor := range []bool{false, true} {
		got, err := (&flags{connection: good, auditor: isAuditor}).resolve(t.Context())
		must(t, err)
		b, err := os.ReadFile(map[bool]string{false: admin, true: auditor}[isAuditor])
		must(t, err)
		if got.endpoint != "127.0.0.1:4201" || admintoken.Format(got.token) != strings.TrimSpace(string(b)) {
			t.Errorf("auditor %v: %+v", isAuditor, got)
		}
	}
	for name, x := range map[string]struct {
		flags flags
		want  string
	}{
		"absent":         {flags{connection: filepath.Join(dir, "none")}, "while kubectl-qpq dev serves the cell"},
		"nonsense":       {flags{connection: in("nonsense", "x")}, "is not a connection.json"},
		"something else": {flags{connection: in("else", "{}")}, "is not a connection.json"},
		"an older one":   {flags{connection: in("older", `{"endpoint": "a:1", "pin": "`+pin+`"}`)}, "names no adminTokenFile"},
		"no token":       {flags{connection: in("gone", `{"endpoint": "a:1", "pin": "`+pin+`", "adminTokenFile": "/nowhere/token"}`)}, "reading the admin token"},
		"a bad pin":      {flags{connection: in("pin", `{"endpoint": "a:1", "pin": "x", "adminTokenFile": "`+admin+`"}`)}, "pin"},
		"with a cell":    {flags{connection: good, cell: "demo"}, "--connection is for a cell without a cluster"},
		"half a pair":    {flags{connection: good, clientCert: "x"}, "two files"},
		"CA and pin":     {flags{connection: good, ca: "x", pin: "y"}, "by --ca or by --pin"},
		"two choices":    {flags{connection: good, clientCert: "x", clientKey: "y", auditor: true}, "--auditor chooses between tokens"},
		"no CA file":     {flags{connection: good, ca: filepath.Join(dir, "none")}, "--ca: open"},
		"no certificate": {flags{connection: good, clientCert: filepath.Join(dir, "none"), clientKey: "y"}, "the client certificate cannot be used"},
	} {
		if _, err := x.flags.resolve(t.Context()); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want %q", name, err, x.want)
		}
	}
}

// With address, trust and certificate nobody else is asked.
func TestTheWayByFlagsAlone(t *testing.T) {
	t.Parallel()
	ca, err := pki.NewCA("test", time.Now(), time.Hour)
	must(t, err)
	cert, key, err := ca.IssueClient("ops", nil, time.Now(), time.Hour)
	must(t, err)
	f := flags{endpoint: "192.0.2.1:1", pin: pin, clientCert: write(t, "a.crt", string(cert)), clientKey: write(t, "a.key", string(key)), kubeconfig: "/nowhere"}
	got, err := f.resolve(t.Context())
	must(t, err)
	if got.token != nil || got.certificate == nil || got.endpoint != f.endpoint {
		t.Errorf("%+v", got)
	}
}

func TestVisible(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"alice": "alice", "José": "José", "a b": "a b", "a\x1b[2J": `"a\x1b[2J"`, "a\u202eb": `"a\u202eb"`, `a"b`: `"a\"b"`} {
		if got := visible(name); got != want {
			t.Errorf("%q is shown as %s", name, got)
		}
	}
}
