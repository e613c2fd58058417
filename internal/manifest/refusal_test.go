package manifest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// What a person reads below "f.yaml is not a valid MessagingCell:", whole.
func TestWhatIsPrinted(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: messaging.quicproquo.dev/v1alpha1\nkind: MessagingCell\n"
	spec := func(s string) string { return manifest("demo", s) }
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"version missing": {"kind: MessagingCell\nmetadata: {name: a}\n",
			[]string{"apiVersion: is missing; write messaging.quicproquo.dev/v1alpha1"}},
		"another version": {"apiVersion: v1\nkind: MessagingCell\n",
			[]string{`apiVersion: "v1" is not an API version of MessagingCell; write messaging.quicproquo.dev/v1alpha1`}},
		"no metadata": {head, []string{"metadata.name: is missing; write a name such as demo"}},
		"name missing, rules still checked": {head + "metadata: {namespace: a}\nspec: {endpoint: {host: 'a b'}}\n",
			[]string{"metadata.name: is missing; write a name such as demo",
				`spec.endpoint.host: "a b" is neither a DNS name nor an IP address; write one such as chat.example.org, without scheme and port`}},
		"name a number": {head + "metadata: {name: 1}\n",
			[]string{"metadata.name: is a number where a string in quotes belongs; write a string in quotes"}},
		"metadata a list": {head + "metadata: [a]\n",
			[]string{"metadata: a list is not a section; write name: below it, indented", "not every rule could be checked; correct the fields above and try again"}},
		"name with capitals": {head + "metadata: {name: Demo}\n",
			[]string{`metadata.name: "Demo" is not a name that Kubernetes takes; write lower-case letters, digits and dashes, a letter first, such as team-chat`}},
		"name with a dot": {head + "metadata: {name: a.b}\n",
			[]string{"metadata.name: cannot begin the names of the cell's Services and Jobs; write at most 40 lower-case letters, digits and dashes, a letter first, such as team-chat"}},
		"name with a digit first": {head + "metadata: {name: 1a}\n",
			[]string{"metadata.name: cannot begin the names of the cell's Services and Jobs; write at most 40 lower-case letters, digits and dashes, a letter first, such as team-chat"}},
		"label": {head + "metadata: {name: a, labels: {a: 'b c'}}\n",
			[]string{`metadata.labels: "b c": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character; write what Kubernetes allows there, or remove it`}},
		"metadata misspelt": {head + "metadata: {name: a, label: {a: b}}\n",
			[]string{"metadata.label: there is no such field; write labels"}},
		"spec a list": {spec("[a]"),
			[]string{"spec: a list is not a section; write its fields below it, indented: access, contacts, database, endpoint, image, limits, mls, replicas, retention, sessions, signup",
				"not every rule could be checked; correct the fields above and try again"}},
		"field misspelt":    {spec("{replica: 2}"), []string{"spec.replica: there is no such field; write replicas"}},
		"section misspelt":  {spec("{endPoint: {port: 1}}"), []string{"spec.endPoint: there is no such field; write endpoint"}},
		"field misplaced":   {spec("{dedupWindow: 1h}"), []string{"spec.dedupWindow: there is no such field here; move it to spec.retention.dedupWindow"}},
		"field at the root": {spec("{}") + "replicas: 2\n", []string{"replicas: there is no such field here; move it to spec.replicas"}},
		"field of nothing": {spec("{retention: {compression: lz4}}"),
			[]string{"spec.retention.compression: there is no such field; write one of audit, dedupWindow, history, inbox, messages, or remove it"}},
		"suites are fixed": {spec("{mls: {suites: []}}"),
			[]string{"spec.mls.suites: there is no such field; write one of keyPackageLifetime, lastResortLifetime, maxKeyPackagesPerDevice, or remove it"}},
		"replicas below":         {spec("{replicas: -1}"), []string{"spec.replicas: -1 is below the least allowed; write a whole number from 0 to 100, such as 1"}},
		"replicas above":         {spec("{replicas: 101}"), []string{"spec.replicas: 101 is above the most allowed; write a whole number from 0 to 100, such as 1"}},
		"replicas a float":       {spec("{replicas: 1.5}"), []string{"spec.replicas: 1.5 is not a whole number; write a whole number from 0 to 100, such as 1", "not every rule could be checked; correct the fields above and try again"}},
		"replicas a huge number": {spec("{replicas: 99999999999}"), []string{"spec.replicas: 99999999999 is above the most allowed; write a whole number from 0 to 100, such as 1"}},
		"replicas a text": {spec(`{replicas: "3"}`),
			[]string{`spec.replicas: "3" is not a whole number; write a whole number from 0 to 100, such as 1`, "not every rule could be checked; correct the fields above and try again"}},
		"port nought": {spec("{endpoint: {port: 0}}"), []string{"spec.endpoint.port: 0 is below the least allowed; write a whole number from 1 to 65535, such as 4201"}},
		"port above":  {spec("{endpoint: {port: 65536}}"), []string{"spec.endpoint.port: 65536 is above the most allowed; write a whole number from 1 to 65535, such as 4201"}},
		"payload up":  {spec("{limits: {maxPayloadBytes: 5242881}}"), []string{"spec.limits.maxPayloadBytes: 5242881 is above the most allowed; write a whole number from 16384 to 5242880, such as 5242880"}},
		"contacts": {spec("{contacts: closed}"),
			[]string{`spec.contacts: "closed" is not one of the choices; write open or request`, "not every rule could be checked; correct the fields above and try again"}},
		"service type": {spec("{endpoint: {serviceType: nodeport}}"),
			[]string{`spec.endpoint.serviceType: "nodeport" is not one of the choices; write ClusterIP or NodePort or LoadBalancer`, "not every rule could be checked; correct the fields above and try again"}},
		"history": {spec("{retention: {history: 'no'}}"),
			[]string{`spec.retention.history: "no" is not true or false; write true or false`, "not every rule could be checked; correct the fields above and try again"}},
		"no database": {spec("{database: {}}"),
			[]string{"spec.database: needs exactly one kind of database; write either secretRef for your own PostgreSQL or embedded: {} for one that comes with the cell"}},
		"secret without name": {spec("{database: {secretRef: {}}}"),
			[]string{"spec.database.secretRef.name: is missing; write a string", "not every rule could be checked; correct the fields above and try again"}},
		"days": {spec("{retention: {messages: 7d}}"),
			[]string{`spec.retention.messages: "7d" is not a duration from 1h to 8760h; write hours, minutes or seconds, such as 168h for 7 days`}},
		"duration a number": {spec("{retention: {messages: 168}}"),
			[]string{"spec.retention.messages: 168 is not a string; write a string, such as 168h", "not every rule could be checked; correct the fields above and try again"}},
		"duration empty": {spec("{mls: {keyPackageLifetime: ''}}"),
			[]string{`spec.mls.keyPackageLifetime: "" is not a duration from 1h to 720h; write hours, minutes or seconds, such as 24h`}},
		"duration past all bounds": {spec("{retention: {inbox: 999999h9999999m999999999s}}"),
			[]string{"spec.retention.inbox: is too long; write at most 24 characters", "not every rule could be checked; correct the fields above and try again"}},
		"size": {spec("{database: {embedded: {storage: {size: 10GB}}}}"),
			[]string{`spec.database.embedded.storage.size: "10GB" is less than 1Gi or not a size; write a quantity such as 10Gi`}},
		"size in bytes": {spec("{database: {embedded: {storage: {size: 10}}}}"),
			[]string{"spec.database.embedded.storage.size: 10 is less than 1Gi or not a size; write a quantity such as 10Gi"}},
		"range twice": {spec("{limits: {trustedRanges: [10.0.0.0/8, 10.0.0.0/8]}}"),
			[]string{`spec.limits.trustedRanges[1]: "10.0.0.0/8" stands there twice; remove one of them`}},
		"too many ranges": {spec("{limits: {trustedRanges: [" + ranges(65) + "]}}"),
			[]string{"spec.limits.trustedRanges: has too many entries; write at most 64", "not every rule could be checked; correct the fields above and try again"}},
		"signup": {spec("{signup: request}"),
			[]string{`spec.signup: "request" is not one of the choices; write open or invitation or closed`, "not every rule could be checked; correct the fields above and try again"}},
		"certificates of nobody": {spec("{access: {clientCertificates: required}}"),
			[]string{"spec.access: asks for client certificates without saying which CAs issue them; write clientCASecretRef: {name: NAME} or clientCAConfigMapRef: {name: NAME}, or clientCertificates: none"}},
		"admin twice": {spec("{access: {clientCertificates: optional, clientCASecretRef: {name: a}, admins: [{name: a, role: auditor}, {name: a, role: cellAdmin}]}}"),
			[]string{`spec.access.admins[1]: a section stands there twice; remove one of them`}},
		"admin without role": {spec("{access: {clientCertificates: optional, clientCASecretRef: {name: a}, admins: [{name: a}]}}"),
			[]string{"spec.access.admins[0].role: is missing; write cellAdmin or auditor", "not every rule could be checked; correct the fields above and try again"}},
		"several": {spec("{replicas: 200, retention: {messages: 1s, inbox: 1s}, endpoints: {}}"),
			[]string{"spec.endpoints: there is no such field; write endpoint",
				"spec.replicas: 200 is above the most allowed; write a whole number from 0 to 100, such as 1",
				`spec.retention.inbox: "1s" is not a duration from 1h to 8760h; write hours, minutes or seconds, such as 720h for 30 days`,
				`spec.retention.messages: "1s" is not a duration from 1h to 8760h; write hours, minutes or seconds, such as 168h for 7 days`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse([]byte(tc.text), "f.yaml")
			want := "f.yaml is not a valid MessagingCell:\n" + strings.Join(tc.want, "\n")
			if err == nil || err.Error() != want {
				t.Errorf("printed is\n%v\nwant\n%s", err, want)
			}
			var problem *Problem
			if !errors.As(err, &problem) {
				t.Errorf("%T wraps no Problem", err)
			}
		})
	}
}

// A file full of garbage does not fill a terminal with it.
func TestGarbageIsShortened(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100_000)
	for _, text := range []string{
		manifest("demo", "{contacts: "+long+"}"), manifest("demo", "{"+long+": 1}"), manifest(long, "{}"),
		manifest("demo", "{retention: {messages: "+long+"}}"), manifest("demo", "{database: {embedded: {storage: {size: "+long+"}}}}"),
		strings.ReplaceAll(manifest("demo", "{}"), "messaging.quicproquo.dev/v1alpha1", long),
	} {
		_, err := Parse([]byte(text), "f.yaml")
		if n := len(fmt.Sprint(err)); err == nil || n > 2000 {
			t.Errorf("printed are %d bytes for %.80s", n, text)
		}
	}
}

func ranges(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("10.%d.0.0/16", i))
	}
	return strings.Join(list, ", ")
}
