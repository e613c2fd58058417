package manifest

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const sample = "../../config/samples/messagingcell.yaml"

// The sample says of itself that it shows the defaults.
func TestSampleIsValidAndShowsTheDefaults(t *testing.T) {
	t.Parallel()
	got, err := Load(sample)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Parse([]byte(manifest("demo", "{}")), "bare")
	if err != nil {
		t.Fatal(err)
	}
	if !apiequality.Semantic.DeepEqual(got, want) {
		t.Errorf("the sample is\n%+v\nthe defaults are\n%+v", got, want)
	}
}

// The whole object that an API server makes of a cell that states nothing.
func TestDefaultsGolden(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		manifest("demo", "{}"), manifest("demo", "null"), manifest("demo", "{limits: null, database: null, replicas: null}"),
		"apiVersion: messaging.quicproquo.dev/v1alpha1\nkind: MessagingCell\nmetadata: {name: demo}\n",
	} {
		cell, err := Parse([]byte(text), "bare")
		if err != nil {
			t.Fatal(err)
		}
		got, err := yaml.Marshal(cell)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", "defaults.yaml")
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s\nbecomes\n%s\nwant\n%s", text, got, want)
		}
	}
}

func TestGivenValuesStay(t *testing.T) {
	t.Parallel()
	cell, err := Parse([]byte(manifest("demo", `{replicas: 0, database: {secretRef: {name: db}}, retention: {history: false, messages: 1h30m},
		endpoint: {port: 443, serviceType: LoadBalancer}}`)), "given")
	if err != nil {
		t.Fatal(err)
	}
	s := cell.Spec
	if *s.Replicas != 0 || s.Database.Embedded != nil || s.Database.SecretRef.Key != "uri" || *s.Retention.History ||
		s.Retention.Messages.Minutes() != 90 || s.Endpoint.Port != 443 || s.Endpoint.ServiceType != "LoadBalancer" {
		t.Errorf("spec is %+v", s)
	}
}

// What `kubectl get -o yaml` prints can be applied again; its status counts
// for nothing, as in a cluster.
func TestExportedObjectIsTaken(t *testing.T) {
	t.Parallel()
	cell, err := Parse([]byte(manifest("demo", "{}")+`
status: {observedGeneration: 7, replicas: many, nonsense: true}
`), "exported")
	if err != nil {
		t.Fatal(err)
	}
	if cell.Status.ObservedGeneration != -1 {
		t.Errorf("status is %+v", cell.Status)
	}
	_, err = Parse([]byte(strings.Replace(manifest("demo", "{}"), "{name: demo}", `
  name: demo
  namespace: chat
  uid: 7d6f0c1e-3c1c-4bb0-8f50-5ad9e9a3a9a2
  resourceVersion: "42"
  generation: 3
  creationTimestamp: "2026-01-02T03:04:05Z"
  annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}
  finalizers: [messaging.quicproquo.dev/cell]
  managedFields: [{apiVersion: messaging.quicproquo.dev/v1alpha1, fieldsType: FieldsV1, fieldsV1: {"f:spec": {}}, manager: kubectl, operation: Apply, time: "2026-01-02T03:04:05Z"}]`, 1)), "exported")
	if err != nil {
		t.Error(err)
	}
}

func TestOneCellAmongOtherObjects(t *testing.T) {
	t.Parallel()
	const secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData:\n  uri: |\n    ---x\n"
	cell := manifest("demo", "{}")
	for name, text := range map[string]string{
		"alone, marked":        "---\n" + cell + "---\n",
		"after a Secret":       secret + "---\n" + cell,
		"before a Secret":      "# mine\n--- # cell\n" + cell + "...\n---\n" + secret,
		"with a directive":     "%YAML 1.1\n---\n" + cell,
		"Windows line ends":    strings.ReplaceAll(secret+"---\n"+cell, "\n", "\r\n"),
		"JSON":                 `{"apiVersion": "messaging.quicproquo.dev/v1alpha1", "kind": "MessagingCell", "metadata": {"name": "demo"}}`,
		"after nothing at all": "\n\n---\n# empty\n---\n" + cell,
	} {
		got, err := Parse([]byte(text), name)
		if err != nil || got.Name != "demo" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFilesThatHoldNoCell(t *testing.T) {
	t.Parallel()
	cell := manifest("demo", "{}")
	const write = "; write one that begins with\napiVersion: messaging.quicproquo.dev/v1alpha1\nkind: MessagingCell"
	for name, tc := range map[string]struct{ text, want string }{
		"empty":         {"", "f.yaml: holds no MessagingCell" + write},
		"comments":      {"# a\n---\n# b\n", "f.yaml: holds no MessagingCell" + write},
		"other objects": {"kind: Secret\n---\nkind: Messagingcell\n", `f.yaml: holds no MessagingCell, but "Secret", "Messagingcell"` + write},
		"many others":   {strings.Repeat("kind: Pod\n---\n", 7), `"Pod" and 2 more objects` + write},
		"a list":        {"- kind: MessagingCell\n", "f.yaml: holds no MessagingCell" + write},
		"kind no text":  {"kind: [MessagingCell]\n", "f.yaml: holds no MessagingCell" + write},
		"two cells":     {cell + "---\n" + cell, "f.yaml: holds 2 MessagingCells; write each into a file of its own"},
		"tab":           {"kind: MessagingCell\nspec:\n\treplicas: 1\n", "f.yaml: is not valid YAML: yaml: line 3: found character that cannot start any token; write each field once, as name: value, indented with spaces"},
		"template":      {"kind: Secret\n---\nname: {{ .Values.name }}\n", "f.yaml: is not valid YAML in document 2: "},
		"twice":         {cell + "spec: {}\n", `f.yaml: is not valid YAML: yaml: unmarshal errors:` + "\n" + `  line 5: key "spec" already set in map; write each field once`},
		"too long":      {"#" + strings.Repeat("x", maxFileBytes), "f.yaml: the file is longer than 3145728 bytes; write the MessagingCell into a file of its own"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse([]byte(tc.text), "f.yaml")
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("printed is\n%v\nwant\n%s", err, tc.want)
			}
		})
	}
}

func TestLoadOfWhatIsNoFile(t *testing.T) {
	t.Parallel()
	if _, err := Load(filepath.Join(t.TempDir(), "absent.yaml")); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "absent.yaml") {
		t.Errorf("error of a missing file: %v", err)
	}
	dir := t.TempDir()
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("error of a directory: %v", err)
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	candidates := []string{"replicas", "retention", "contacts", "mls", "image"}
	for name, want := range map[string]string{
		"replica": "replicas", "Replicas": "replicas", "retension": "retention", "contact": "contacts", "ml": "mls",
		"imgae": "image", "xyz": "", "": "", "database": "", strings.Repeat("replicas", 20): "",
	} {
		if got := nearest(name, candidates); got != want {
			t.Errorf("nearest(%q) = %q, want %q", name, got, want)
		}
	}
}
