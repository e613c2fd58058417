package policy

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestDefaultIsTheFileThatStatesOnlyItsVersion(t *testing.T) {
	t.Parallel()
	p, err := Parse([]byte("version: " + Version + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Hash() != Default().Hash() || p.Hash() == "" {
		t.Errorf("hash %q, want that of Default, %q", p.Hash(), Default().Hash())
	}
}

// The numbers are those of the product's documentation; the golden file is
// what the operator writes for a cell that states nothing.
func TestDefaultGolden(t *testing.T) {
	t.Parallel()
	got, err := Default().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join("testdata", "default.yaml")
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("Default() is\n%s\nwant\n%s", got, want)
	}
}

func TestParseTakesEveryField(t *testing.T) {
	t.Parallel()
	p, err := Parse([]byte(`
version: quicproquo.dev/policy/v1
contacts: request
signup: invitation
limits:
  requestsPerSecond: 1
  requestBurst: 2
  loginsPerMinute: 7
  lookupsPerMinute: 8
  messagesPerChannel: 11
  connectionsPerIP: 3
  maxConnections: 4
  handshakesBeforeRetry: 9
  maxPayloadBytes: 16384
  maxInFlightPerDevice: 5
  trustedRanges: ["2001:db8::1/32", 10.1.2.3/8, 10.0.0.0/8]
retention: {messages: 1h30m, dedupWindow: 2h, inbox: 3h, audit: 25h, history: false}
mls:
  suites: [MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519]
  keyPackageLifetime: 4h
  lastResortLifetime: 25h
  maxKeyPackagesPerDevice: 6
sessions: {accessTokenTTL: 90s, refreshTokenTTL: 5h, maxAge: 6h}
access:
  clientCertificates: optional
  admins: [{name: "spiffe://example.org/ops", role: cellAdmin}, {role: auditor, name: José}]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := Policy{
		Version: Version, Contacts: ContactsRequest, Signup: SignupInvitation,
		Limits: Limits{1, 2, 7, 8, 11, 3, 4, 9, 16384, 5, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}},
		Retention: Retention{Messages: Duration(90 * time.Minute), DedupWindow: Duration(2 * time.Hour),
			Inbox: Duration(3 * time.Hour), Audit: Duration(25 * time.Hour)},
		MLS:      MLS{[]string{SuiteX25519AES128}, Duration(4 * time.Hour), Duration(25 * time.Hour), 6},
		Sessions: Sessions{Duration(90 * time.Second), Duration(5 * time.Hour), Duration(6 * time.Hour)},
		Access:   Access{CertificatesOptional, []Admin{{"José", RoleAuditor}, {"spiffe://example.org/ops", RoleCellAdmin}}},
	}
	if g, w := asJSON(t, p), asJSON(t, &want); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
}

func TestParseRefusals(t *testing.T) {
	t.Parallel()
	const v = "version: quicproquo.dev/policy/v1\n"
	for name, tc := range map[string]struct{ file, want string }{
		"empty":              {"", "the file is empty"},
		"only a comment":     {"# nothing\n", "the file is empty"},
		"a list":             {"- a\n", "the file is empty or not a mapping"},
		"no version":         {"contacts: open\n", "version: is missing; write quicproquo.dev/policy/v1"},
		"later version":      {"version: quicproquo.dev/policy/v2\n", `version: "quicproquo.dev/policy/v2" is not known here; write quicproquo.dev/policy/v1`},
		"not YAML":           {v + "\tx", "the file is not valid YAML"},
		"a key twice":        {v + "contacts: open\ncontacts: request\n", `key "contacts" already set`},
		"second document":    {v + "---\n" + v, "more than one document"},
		"after the end":      {v + "...\ncontacts: open\n", "more than one document"},
		"too long":           {v + "#" + strings.Repeat("x", maxFileBytes), "write at most 1048576"},
		"contacts":           {v + "contacts: closed\n", `contacts: "closed" is not known here; write open or request`},
		"signup":             {v + "signup: request\n", `signup: "request" is not known here; write open or invitation or closed`},
		"contacts type":      {v + "contacts: [open]\n", "contacts: a list is not a string; write open or request"},
		"unknown section":    {v + "limit: {}\n", "limit: there is no such field; write one of version, contacts, signup, limits, retention, mls, sessions, access, or remove it"},
		"unknown field":      {v + "sessions: {ttl: 1h}\n", "sessions.ttl: there is no such field; write one of accessTokenTTL, refreshTokenTTL, maxAge, or remove it"},
		"wrong case":         {v + "Contacts: open\n", "Contacts: there is no such field"},
		"dotted key":         {v + "limits.maxConnections: 5\n", `"limits.maxConnections": there is no such field`},
		"scalar as section":  {v + "limits: 5\n", "limits: 5 is not a section; write its fields below it"},
		"section as scalar":  {v + "limits: {maxConnections: {a: 1}}\n", "limits.maxConnections: a section is not a whole number"},
		"string as number":   {v + `limits: {maxConnections: "5"}`, `limits.maxConnections: "5" is not a whole number; write a whole number from 1 to 1000000, such as 10000`},
		"fraction":           {v + "limits: {maxConnections: 5.5}\n", "limits.maxConnections: 5.5 is not a whole number"},
		"negative":           {v + "limits: {requestsPerSecond: -1}\n", "limits.requestsPerSecond: -1 is below the least allowed; write a whole number from 1 to 100000, such as 50"},
		"huge":               {v + "limits: {connectionsPerIP: 99999999999}\n", "limits.connectionsPerIP: 99999999999 is above the most allowed"},
		"payload raised":     {v + "limits: {maxPayloadBytes: 5242881}\n", "limits.maxPayloadBytes: 5242881 is above the most allowed; write a whole number from 16384 to 5242880"},
		"days":               {v + "retention: {messages: 7d}\n", `retention.messages: "7d" is not a duration; write a duration from 1h to 8760h, such as 168h (units h, m and s; a day is 24h)`},
		"bare number":        {v + "retention: {inbox: 720}\n", "retention.inbox: 720 is not a duration"},
		"too short":          {v + "retention: {dedupWindow: 59m}\n", "retention.dedupWindow: 59m is shorter than allowed; write a duration from 1h to 2160h"},
		"too long kept":      {v + "retention: {messages: 8761h}\n", "retention.messages: 8761h is longer than allowed"},
		"negative duration":  {v + "retention: {messages: -168h}\n", "retention.messages: -168h is shorter than allowed"},
		"history":            {v + "retention: {history: never}\n", `retention.history: "never" is neither true nor false`},
		"another suite":      {v + "mls: {suites: [MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448]}\n", "mls.suites: the allowlist is fixed"},
		"one suite more":     {v + "mls: {suites: [MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519, x]}\n", "mls.suites: the allowlist is fixed"},
		"suites type":        {v + "mls: {suites: MLS}\n", `mls.suites: "MLS" is not a list`},
		"suites item":        {v + "mls: {suites: [1]}\n", "mls.suites[0]: 1 is not a string"},
		"last resort":        {v + "mls: {keyPackageLifetime: 50h, lastResortLifetime: 49h}\n", "mls.lastResortLifetime: 49h is shorter than mls.keyPackageLifetime; write 50h or more"},
		"refresh":            {v + "sessions: {accessTokenTTL: 2h, refreshTokenTTL: 2h}\n", "sessions.refreshTokenTTL: 2h is not longer than sessions.accessTokenTTL; write more than 2h"},
		"address":            {v + "limits: {trustedRanges: [10.0.0.1]}\n", `limits.trustedRanges[0]: "10.0.0.1" is not an address range; write one such as 10.0.0.0/8`},
		"mapped range":       {v + "limits: {trustedRanges: ['::ffff:10.0.0.0/104']}\n", "is an IPv4 range in IPv6 notation"},
		"too many ranges":    {v + "limits: {trustedRanges: [" + manyRanges(65) + "]}\n", "limits.trustedRanges: 65 ranges are too many"},
		"audit too short":    {v + "retention: {audit: 23h}\n", "retention.audit: 23h is shorter than allowed; write a duration from 24h to 87600h, such as 9600h"},
		"age of a session":   {v + "sessions: {maxAge: 87601h}\n", "sessions.maxAge: 87601h is longer than allowed; write a duration from 1h to 87600h, such as 2160h"},
		"certificates":       {v + "access: {clientCertificates: yes}\n", "access.clientCertificates: true is not a string; write none or optional or required"},
		"certificates word":  {v + "access: {clientCertificates: always}\n", `access.clientCertificates: "always" is not known here; write none or optional or required`},
		"admins type":        {v + "access: {admins: {a: cellAdmin}}\n", "access.admins: a section is not a list; write a list of name and role"},
		"admins item":        {v + "access: {admins: [a]}\n", `access.admins[0]: "a" is not an admin; write {name: NAME, role: cellAdmin}`},
		"admin's field":      {v + "access: {admins: [{nam: a}]}\n", "access.admins[0].nam: there is no such field; write one of name, role"},
		"admin's name type":  {v + "access: {admins: [{name: 1, role: auditor}]}\n", "access.admins[0].name: 1 is not a string"},
		"admin without name": {v + "access: {clientCertificates: optional, admins: [{role: auditor}]}\n", `access.admins[0].name: "" is no name of a certificate`},
		"admin with a blank": {v + "access: {clientCertificates: optional, admins: [{name: 'a ', role: auditor}]}\n", `access.admins[0].name: "a " is no name of a certificate`},
		"admin unseen":       {v + "access: {clientCertificates: optional, admins: [{name: \"a\\u200b\", role: auditor}]}\n", `is no name of a certificate`},
		"admin's long name":  {v + "access: {clientCertificates: optional, admins: [{name: " + strings.Repeat("x", 254) + ", role: auditor}]}\n", `is no name of a certificate`},
		"admin without role": {v + "access: {clientCertificates: optional, admins: [{name: a}]}\n", `access.admins[0].role: "" is not known here; write cellAdmin or auditor`},
		"admin's role":       {v + "access: {clientCertificates: optional, admins: [{name: a, role: member}]}\n", `access.admins[0].role: "member" is not known here`},
		"admin twice":        {v + "access: {clientCertificates: optional, admins: [{name: a, role: auditor}, {name: b, role: auditor}, {name: a, role: cellAdmin}]}\n", `access.admins[1].name: "a" stands there twice`},
		"too many admins":    {v + "access: {clientCertificates: optional, admins: [" + strings.Repeat("{name: a, role: auditor}, ", 65) + "]}\n", "access.admins: 65 admins are too many; write at most 64"},
		"admins of nobody":   {v + "access: {admins: [{name: a, role: auditor}]}\n", "access.admins: names client certificates, but access.clientCertificates asks for none"},
		"garbage is cut off": {v + "contacts: " + strings.Repeat("x", 500) + "\n", "…"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := Parse([]byte(tc.file))
			if err == nil {
				t.Fatalf("accepted as %+v", p)
			}
			if p != nil {
				t.Error("a policy came with the error")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is\n%v\nwant in it\n%s", err, tc.want)
			}
			if len(err.Error()) > 1000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

// A file is put right in one go: every fault is told, and each is a FieldError.
func TestParseTellsEveryFault(t *testing.T) {
	t.Parallel()
	_, err := Parse([]byte("contacts: x\nlimits: {a: 1, maxConnections: y, requestBurst: -1}\nretention: {inbox: 1s}\n"))
	want := []string{"contacts", "limits.a", "limits.maxConnections", "limits.requestBurst", "retention.inbox", "version"}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("error %v does not unwrap to a list", err)
	}
	var got []string
	for _, e := range joined.Unwrap() {
		var fault *FieldError
		if !errors.As(e, &fault) {
			t.Fatalf("%v is not a FieldError", e)
		}
		got = append(got, fault.Path)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("faults at %q, want %q", got, want)
	}
}

func TestErrorOfManyFaultsIsBounded(t *testing.T) {
	t.Parallel()
	var unknown, twice strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&unknown, "key%d: 1\n", i)
		fmt.Fprintf(&twice, "key%d: 1\n", i/2)
	}
	for name, file := range map[string]string{"unknown fields": unknown.String(), "repeated fields": twice.String()} {
		_, err := Parse([]byte(file))
		if err == nil || len(err.Error()) > 4000 {
			t.Errorf("%s: the error has %d bytes", name, len(fmt.Sprint(err)))
		}
	}
}

func TestParseAcceptsOneDocumentHoweverMarked(t *testing.T) {
	t.Parallel()
	for _, file := range []string{
		"---\nversion: " + Version + "\n",
		"# head\n--- # start\nversion: " + Version + "\n...\n# tail\n",
		"version: " + Version + "\n---\n",
		"version: " + Version + "\nlimits:\nretention: {}\nmls: null\nlimits2: \n",
	} {
		_, err := Parse([]byte(file))
		if strings.Contains(file, "limits2") == (err == nil) {
			t.Errorf("%q: %v", file, err)
		}
	}
}

func TestZeroAndNullTakeTheDefault(t *testing.T) {
	t.Parallel()
	p, err := Parse([]byte("version: " + Version + `
contacts: ""
limits: {requestsPerSecond: 0, maxPayloadBytes: null, trustedRanges: []}
retention: {messages: 0s, history: null}
mls: {suites: []}
`))
	if err != nil {
		t.Fatal(err)
	}
	if p.Hash() != Default().Hash() {
		t.Errorf("got %s", asJSON(t, p))
	}
}

func TestHashFollowsContent(t *testing.T) {
	t.Parallel()
	seen := map[string]string{Default().Hash(): "default"}
	for _, change := range []string{
		"contacts: request", "signup: invitation", "signup: closed", "limits: {requestsPerSecond: 51}", "limits: {trustedRanges: [10.0.0.0/8]}",
		"retention: {history: false}", "retention: {messages: 169h}", "mls: {lastResortLifetime: 721h}", "sessions: {accessTokenTTL: 16m}",
		"retention: {audit: 9601h}", "sessions: {maxAge: 2161h}", "access: {clientCertificates: optional}", "access: {clientCertificates: required}",
		"access: {clientCertificates: optional, admins: [{name: a, role: auditor}]}", "access: {clientCertificates: optional, admins: [{name: a, role: cellAdmin}]}",
	} {
		p, err := Parse([]byte("version: " + Version + "\n" + change + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[p.Hash()]; ok {
			t.Errorf("%s has the hash of %s", change, other)
		}
		seen[p.Hash()] = change
	}
	wrong := Default()
	wrong.Limits.MaxPayloadBytes = MaxPayloadBytes + 1
	if h := wrong.Hash(); h != "" {
		t.Errorf("a policy that is not valid has hash %s", h)
	}
}

func TestMarshalLeavesItsReceiverAlone(t *testing.T) {
	t.Parallel()
	p := &Policy{Limits: Limits{TrustedRanges: []netip.Prefix{netip.MustParsePrefix("10.9.9.9/8"), netip.MustParsePrefix("10.0.0.0/8")}}}
	before := asJSON(t, p)
	if _, err := p.Marshal(); err != nil {
		t.Fatal(err)
	}
	if after := asJSON(t, p); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

func TestDurationSpelling(t *testing.T) {
	t.Parallel()
	for in, want := range map[time.Duration]string{
		168 * time.Hour: "168h", 90 * time.Minute: "1h30m", 15 * time.Minute: "15m", 90 * time.Second: "1m30s",
		time.Hour + time.Second: "1h0m1s", 10 * time.Minute: "10m", 30 * time.Second: "30s", 0: "0s", time.Millisecond: "1ms",
	} {
		got := Duration(in).String()
		if got != want {
			t.Errorf("%v is %q, want %q", in, got, want)
		}
		var back Duration
		if err := json.Unmarshal([]byte(`"`+got+`"`), &back); err != nil || back != Duration(in) {
			t.Errorf("%q reads back as %v, %v", got, back, err)
		}
	}
}

func TestTrusts(t *testing.T) {
	t.Parallel()
	l := Limits{TrustedRanges: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/10")}}
	for addr, want := range map[string]bool{
		"10.1.2.3": true, "::ffff:10.1.2.3": true, "fe80::1%eth0": true, "11.0.0.1": false, "::1": false, "2001:db8::1": false,
	} {
		if got := l.Trusts(netip.MustParseAddr(addr)); got != want {
			t.Errorf("Trusts(%s) = %v", addr, got)
		}
	}
	if (&Limits{}).Trusts(netip.MustParseAddr("10.0.0.1")) {
		t.Error("an address is trusted though no range is")
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func manyRanges(n int) string {
	var list []string
	for i := range n {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16).String())
	}
	return strings.Join(list, ", ")
}
