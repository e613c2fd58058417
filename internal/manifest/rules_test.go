package manifest

import (
	"strings"
	"testing"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
)

// ruleCase is one CEL rule of the definition: a value it lets pass and one
// that it alone refuses. Of a transition rule old is the spec before.
type ruleCase struct {
	path      string // where the rule stands in the schema
	message   string // how its message begins
	old       string
	good, bad string // specs, or for a rule of the root the name
	printed   string // the line for bad, if it is not path + message
}

var ruleCases = []ruleCase{
	{path: "", message: "metadata.name cannot begin", good: strings.Repeat("a", 40), bad: strings.Repeat("a", 41), printed: "metadata.name: cannot begin the names of the cell's Services and Jobs; write at most 40"},
	{path: "spec.image", message: "is not an image", good: `{image: "registry.example.org:5000/a/b@sha256:0f"}`, bad: `{image: "a b"}`, printed: `spec.image: "a b" is not an image reference; write one such as registry.example.org/quicproquo/cell:v0.1.0`},
	{path: "spec.endpoint.host", message: "is neither", good: `{endpoint: {host: "2001:db8::1"}}`, bad: `{endpoint: {host: "https://chat.example.org"}}`, printed: `spec.endpoint.host: "https://chat.example.org" is neither a DNS name nor an IP address; write one such as chat.example.org`},
	{path: "spec.endpoint.tls.secretName", message: "is not the name", good: `{endpoint: {tls: {secretName: chat-tls}}}`, bad: `{endpoint: {tls: {secretName: chat_tls}}}`},
	{path: "spec.database", message: "needs exactly one", good: `{database: {secretRef: {name: a}}}`, bad: `{database: {secretRef: {name: a}, embedded: {}}}`},
	{path: "spec.database", message: "is about a pooler", good: `{database: {secretRef: {name: a}, pooling: transaction}}`, bad: `{database: {embedded: {}, pooling: transaction}}`, printed: `spec.database.pooling: "transaction" is about a pooler in front of your own PostgreSQL, and the embedded one has none; write pooling: session, or leave it out`},
	{path: "spec.database", message: "cannot change between", old: `{}`, good: `{database: {embedded: {}}}`, bad: `{database: {secretRef: {name: a}}}`},
	{path: "spec.database.secretRef.name", message: "is not the name", good: `{database: {secretRef: {name: a.b}}}`, bad: `{database: {secretRef: {name: A}}}`},
	{path: "spec.database.secretRef.key", message: "is not a key", good: `{database: {secretRef: {name: a, key: DB_uri.1}}}`, bad: `{database: {secretRef: {name: a, key: "a/b"}}}`},
	{path: "spec.database.embedded.storage", message: "a volume cannot change", old: `{database: {embedded: {storage: {storageClassName: fast}}}}`, good: `{database: {embedded: {storage: {storageClassName: fast, size: 20Gi}}}}`, bad: `{database: {embedded: {storage: {storageClassName: slow}}}}`, printed: "spec.database.embedded.storage.storageClassName: a volume cannot change its storage class; write the class it had"},
	{path: "spec.database.embedded.storage.size", message: "is less than", good: `{database: {embedded: {storage: {size: 1Gi}}}}`, bad: `{database: {embedded: {storage: {size: 1023Mi}}}}`},
	{path: "spec.database.embedded.storage.size", message: "a volume cannot shrink", old: `{database: {embedded: {storage: {size: 20Gi}}}}`, good: `{database: {embedded: {storage: {size: 20480Mi}}}}`, bad: `{database: {embedded: {storage: {size: 20479Mi}}}}`},
	{path: "spec.database.embedded.storage.storageClassName", message: "is not the name", good: `{database: {embedded: {storage: {storageClassName: fast}}}}`, bad: `{database: {embedded: {storage: {storageClassName: Fast}}}}`},
	{path: "spec.limits.trustedRanges[0]", message: "is not an address range", good: `{limits: {trustedRanges: ["10.0.0.0/8", "::/0"]}}`, bad: `{limits: {trustedRanges: ["10.0.0.1"]}}`},
	{path: "spec.retention.messages", message: "is not a duration from 1h to 8760h", good: `{retention: {messages: 525600m}}`, bad: `{retention: {messages: 525601m}}`},
	{path: "spec.retention.dedupWindow", message: "is not a duration from 1h to 2160h", good: `{retention: {dedupWindow: 2160h0m0s}}`, bad: `{retention: {dedupWindow: 2160h0m1s}}`},
	{path: "spec.retention.inbox", message: "is not a duration from 1h to 8760h", good: `{retention: {inbox: 3600s}}`, bad: `{retention: {inbox: 3599s}}`},
	{path: "spec.mls", message: "is shorter than", good: `{mls: {keyPackageLifetime: 100h, lastResortLifetime: 100h}}`, bad: `{mls: {keyPackageLifetime: 100h, lastResortLifetime: 99h}}`, printed: `spec.mls.lastResortLifetime: "99h" is shorter than keyPackageLifetime; write as much or more`},
	{path: "spec.mls.keyPackageLifetime", message: "is not a duration from 1h to 720h", good: `{mls: {keyPackageLifetime: 720h}}`, bad: `{mls: {keyPackageLifetime: 59m}}`},
	{path: "spec.mls.lastResortLifetime", message: "is not a duration from 24h to 8760h", good: `{mls: {lastResortLifetime: 24h}}`, bad: `{mls: {lastResortLifetime: 8761h}}`},
	{path: "spec.sessions", message: "is not longer", good: `{sessions: {accessTokenTTL: 59m59s, refreshTokenTTL: 1h}}`, bad: `{sessions: {accessTokenTTL: 1h, refreshTokenTTL: 1h}}`, printed: `spec.sessions.refreshTokenTTL: "1h" is not longer than accessTokenTTL; write more`},
	{path: "spec.sessions.accessTokenTTL", message: "is not a duration from 1m to 24h", good: `{sessions: {accessTokenTTL: 1m}}`, bad: `{sessions: {accessTokenTTL: 59s}}`},
	{path: "spec.sessions.refreshTokenTTL", message: "is not a duration from 1h to 8760h", good: `{sessions: {refreshTokenTTL: 8760h}}`, bad: `{sessions: {refreshTokenTTL: 365d}}`},
	{path: "spec.retention.audit", message: "is not a duration from 24h to 87600h", good: `{retention: {audit: 24h}}`, bad: `{retention: {audit: 87600h1s}}`},
	{path: "spec.sessions.maxAge", message: "is not a duration from 1h to 87600h", good: `{sessions: {maxAge: 87600h}}`, bad: `{sessions: {maxAge: 59m}}`},
	{path: "spec.access", message: "takes its client CAs from one place", good: `{access: {clientCAConfigMapRef: {name: a}}}`, bad: `{access: {clientCASecretRef: {name: a}, clientCAConfigMapRef: {name: a}}}`},
	{path: "spec.access", message: "asks for client certificates without", good: `{access: {clientCertificates: required, clientCASecretRef: {name: a}}}`, bad: `{access: {clientCertificates: optional}}`},
	{path: "spec.access", message: "names client certificates, but", good: `{access: {clientCertificates: optional, clientCASecretRef: {name: a}, admins: [{name: a, role: auditor}]}}`, bad: `{access: {clientCASecretRef: {name: a}, admins: [{name: a, role: auditor}]}}`, printed: "spec.access.admins: names client certificates, but clientCertificates asks for none; write clientCertificates: optional or required, or remove admins"},
	{path: "spec.access.clientCASecretRef.name", message: "is not the name", good: `{access: {clientCASecretRef: {name: a.b}}}`, bad: `{access: {clientCASecretRef: {name: A}}}`},
	{path: "spec.access.clientCASecretRef.key", message: "is not a key", good: `{access: {clientCASecretRef: {name: a, key: CA_1.pem}}}`, bad: `{access: {clientCASecretRef: {name: a, key: "a/b"}}}`},
	{path: "spec.access.clientCAConfigMapRef.name", message: "is not the name", good: `{access: {clientCAConfigMapRef: {name: a.b}}}`, bad: `{access: {clientCAConfigMapRef: {name: a_b}}}`},
	{path: "spec.access.clientCAConfigMapRef.key", message: "is not a key", good: `{access: {clientCAConfigMapRef: {name: a, key: CA_1.pem}}}`, bad: `{access: {clientCAConfigMapRef: {name: a, key: ""}}}`},
	{path: "spec.access.admins[0].name", message: "is no name", good: `{access: {clientCertificates: optional, clientCASecretRef: {name: a}, admins: [{name: "José Ops", role: auditor}]}}`, bad: `{access: {clientCertificates: optional, clientCASecretRef: {name: a}, admins: [{name: "ops ", role: auditor}]}}`},
}

func TestEachRulePassesAndFails(t *testing.T) {
	t.Parallel()
	for _, tc := range ruleCases {
		t.Run(tc.path+" "+tc.message, func(t *testing.T) {
			t.Parallel()
			if problems := admitCase(t, tc, tc.good); len(problems) > 0 {
				t.Errorf("%s is refused: %v", tc.good, join(problems))
			}
			problems := admitCase(t, tc, tc.bad)
			if len(problems) != 1 {
				t.Fatalf("%s has %d problems, want the one of this rule: %v", tc.bad, len(problems), join(problems))
			}
			want := tc.printed
			if want == "" {
				want = tc.message
				if !strings.HasPrefix(problems[0].Error(), tc.path+": ") {
					t.Errorf("printed is\n%v\nwhich is not about %s", problems[0], tc.path)
				}
			}
			if !strings.Contains(problems[0].Error(), want) {
				t.Errorf("printed is\n%v\nwant\n%s", problems[0], want)
			}
		})
	}
}

// A rule without a case is a rule that nobody has seen refuse anything.
func TestEveryRuleHasACase(t *testing.T) {
	t.Parallel()
	rules := mustRules(t)
	found := 0
	var walk func(path string, node *structuralschema.Structural)
	walk = func(path string, node *structuralschema.Structural) {
		for _, rule := range node.XValidations {
			found++
			if n := countCases(path, rule.Message); n != 1 {
				t.Errorf("%d cases for the rule at %q that says %q", n, path, rule.Message)
			}
		}
		for name, child := range node.Properties {
			walk(strings.TrimPrefix(path+"."+name, "."), &child)
		}
		if node.Items != nil {
			walk(path+"[0]", node.Items)
		}
	}
	walk("", rules.schema)
	if found != len(ruleCases) {
		t.Errorf("the definition has %d rules, the table %d", found, len(ruleCases))
	}
}

func countCases(path, message string) int {
	n := 0
	for _, tc := range ruleCases {
		if tc.path == path && strings.HasPrefix(message, tc.message) {
			n++
		}
	}
	return n
}

// A transition rule judges only a change: creating a cell with either kind of
// database, and leaving an invalid size as it is told once, are not changes.
func TestTransitionRulesSpareCreation(t *testing.T) {
	t.Parallel()
	for _, tc := range ruleCases {
		if tc.old == "" {
			continue
		}
		tc.old = ""
		if problems := admitCase(t, tc, tc.bad); len(problems) > 0 {
			t.Errorf("creating %s is refused: %v", tc.bad, join(problems))
		}
	}
}

// admitCase admits a spec, or for a root rule a name, over the old one.
func admitCase(t *testing.T, tc ruleCase, given string) []*Problem {
	t.Helper()
	rules := mustRules(t)
	var old map[string]any
	if tc.old != "" {
		old = object(t, manifest("demo", tc.old))
		if problems := rules.admit(old, nil); len(problems) > 0 {
			t.Fatalf("the old spec is refused: %v", join(problems))
		}
	}
	text := manifest("demo", given)
	if tc.path == "" {
		text = manifest(given, "{}")
	}
	return rules.admit(object(t, text), old)
}

func mustRules(t *testing.T) *rules {
	t.Helper()
	rules, err := loadRules()
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func object(t *testing.T, text string) map[string]any {
	t.Helper()
	o, err := (&document{text: []byte(text)}).decode()
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func manifest(name, spec string) string {
	return "apiVersion: messaging.quicproquo.dev/v1alpha1\nkind: MessagingCell\nmetadata: {name: " + name + "}\nspec: " + spec + "\n"
}
