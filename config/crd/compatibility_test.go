package crd_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"quicproquo.dev/internal/manifest"
)

type schema = apiextensionsv1.JSONSchemaProps

// A cell that was valid stays valid and means the same, and whoever reads its
// status finds what was there: no field goes, none takes less than it took, and
// a default stays. testdata/v1alpha1.yaml is what was promised; a field that is
// new is added there when it has been in a release.
func TestNothingThatWasPromisedIsGone(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/v1alpha1.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var promised schema
	if err := yaml.UnmarshalStrict(b, &promised); err != nil {
		t.Fatal(err)
	}
	for _, broken := range breaks("", &promised, load(t).Spec.Versions[0].Schema.OpenAPIV3Schema) {
		t.Error(broken)
	}
}

// breaks lists what an object of the old schema may fail at with the new one.
func breaks(path string, old, now *schema) (list []string) {
	add := func(broken bool, what string) {
		if broken {
			list = append(list, path+": "+what)
		}
	}
	add(old.Type != now.Type || old.XIntOrString != now.XIntOrString, "was a "+old.Type)
	add(!sameDefault(old, now), "had another default")
	add(narrower(old.Minimum, now.Minimum, 1) || narrower(old.Maximum, now.Maximum, -1), "takes fewer numbers")
	add(shorter(old.MaxLength, now.MaxLength) || shorter(old.MaxItems, now.MaxItems), "takes less")
	add(longer(old.MinLength, now.MinLength) || longer(old.MinItems, now.MinItems), "takes no more as little")
	add(now.Pattern != old.Pattern || now.Format != old.Format, "has another pattern")
	for _, choice := range old.Enum {
		add(len(now.Enum) > 0 && !slices.ContainsFunc(now.Enum, func(c apiextensionsv1.JSON) bool { return bytes.Equal(c.Raw, choice.Raw) }), "does not take "+string(choice.Raw))
	}
	add(len(old.Enum) == 0 && len(now.Enum) > 0, "takes only some values")
	for _, name := range now.Required {
		add(!slices.Contains(old.Required, name), name+" has become required")
	}
	for _, rule := range now.XValidations {
		add(!slices.ContainsFunc(old.XValidations, func(r apiextensionsv1.ValidationRule) bool { return r.Rule == rule.Rule }) && !aboutNewField(old, now, rule.Rule),
			"has a new rule about old fields: "+rule.Message)
	}
	for name, was := range old.Properties {
		is, ok := now.Properties[name]
		add(!ok, name+" is gone")
		if ok {
			list = append(list, breaks(path+"."+name, &was, &is)...)
		}
	}
	if old.Items != nil && now.Items != nil {
		list = append(list, breaks(path+"[]", old.Items.Schema, now.Items.Schema)...)
	}
	return list
}

func sameDefault(old, now *schema) bool {
	if old.Default == nil || now.Default == nil {
		return old.Default == now.Default
	}
	return bytes.Equal(old.Default.Raw, now.Default.Raw)
}

// narrower reports whether a bound excludes more than it did; sign is 1 for a
// lower one.
func narrower(old, now *float64, sign float64) bool {
	return now != nil && (old == nil || *now*sign > *old*sign)
}

func shorter(old, now *int64) bool { return now != nil && (old == nil || *now < *old) }

func longer(old, now *int64) bool { return now != nil && (old == nil || *now > *old) }

// aboutNewField reports whether a rule looks at a field that no old object has.
func aboutNewField(old, now *schema, rule string) bool {
	for name := range now.Properties {
		if _, had := old.Properties[name]; !had && strings.Contains(rule, "self."+name) {
			return true
		}
	}
	return false
}

// The comparison finds what it is for.
func TestBreaksAreFound(t *testing.T) {
	t.Parallel()
	const old = `{type: object, properties: {a: {type: integer, minimum: 1, maximum: 9, default: 3}, b: {type: string, maxLength: 5, enum: [p, q]}, c: {type: array, items: {type: string}}}}`
	for now, want := range map[string]string{
		strings.Replace(old, "minimum: 1", "minimum: 2", 1):                                                                                   ".a: takes fewer numbers",
		strings.Replace(old, "maximum: 9", "maximum: 8", 1):                                                                                   ".a: takes fewer numbers",
		strings.Replace(old, "default: 3", "default: 4", 1):                                                                                   ".a: had another default",
		strings.Replace(old, ", default: 3", "", 1):                                                                                           ".a: had another default",
		strings.Replace(old, "maxLength: 5", "maxLength: 4", 1):                                                                               ".b: takes less",
		strings.Replace(old, "enum: [p, q]", "enum: [p]", 1):                                                                                  `.b: does not take "q"`,
		strings.Replace(old, "enum: [p, q]", "pattern: x", 1):                                                                                 ".b: has another pattern",
		strings.Replace(old, "items: {type: string", "items: {type: integer", 1):                                                              ".c[]: was a string",
		strings.Replace(old, "c:", "d:", 1):                                                                                                   ": c is gone",
		strings.Replace(old, "properties", "required: [a], properties", 1):                                                                    ": a has become required",
		strings.Replace(old, "type: integer", "type: number", 1):                                                                              ".a: was a integer",
		strings.Replace(old, "{type: array", "{type: array, maxItems: 2", 1):                                                                  ".c: takes less",
		strings.Replace(old, "{type: array", "{type: array, minItems: 2", 1):                                                                  ".c: takes no more as little",
		old[:len(old)-1] + `, x-kubernetes-validations: [{rule: "self.a > 2"}]}`:                                                              ": has a new rule about old fields: ",
		strings.Replace(old, "maximum: 9", "maximum: 10", 1):                                                                                  "",
		strings.Replace(old, "enum: [p, q]", "enum: [p, q, r]", 1):                                                                            "",
		strings.Replace(old, "a:", `more: {type: integer}, a:`, 1):                                                                            "",
		strings.Replace(old[:len(old)-1]+`, x-kubernetes-validations: [{rule: "self.more > self.a"}]}`, "a:", "more: {type: integer}, a:", 1): "",
	} {
		var was, is schema
		for text, into := range map[string]*schema{old: &was, now: &is} {
			if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
				t.Fatal(err)
			}
		}
		got := breaks("", &was, &is)
		if want == "" && len(got) > 0 || want != "" && !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q, want %q", now, got, want)
		}
	}
}

// Cells as people have written them, judged by the rules that an API server
// has now.
func TestOldCellsAreStillValid(t *testing.T) {
	t.Parallel()
	if _, err := manifest.Load("testdata/sample-first.yaml"); err != nil {
		t.Error(err)
	}
	for _, spec := range []string{
		`{}`, `{database: {embedded: {}}}`, `{database: {secretRef: {name: chat-database, key: DSN}}}`,
		`{replicas: 3, contacts: request, signup: invitation, endpoint: {port: 443, serviceType: LoadBalancer, host: chat.example.org, tls: {secretName: chat-tls}},
			database: {secretRef: {name: chat-database}}, limits: {requestsPerSecond: 100000, requestBurst: 200000, connectionsPerIP: 1, trustedRanges: ["::/0"]},
			retention: {messages: 24h, history: false}, mls: {maxKeyPackagesPerDevice: 1000}, sessions: {accessTokenTTL: 1m},
			access: {clientCertificates: required, clientCASecretRef: {name: a}, admins: [{name: b, role: auditor}]}}`,
	} {
		text := fmt.Sprintf("apiVersion: messaging.quicproquo.dev/v1alpha1\nkind: MessagingCell\nmetadata: {name: demo}\nspec: %s\n", spec)
		if _, err := manifest.Parse([]byte(text), "old"); err != nil {
			t.Errorf("%s: %v", spec, err)
		}
	}
}
