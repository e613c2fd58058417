package resources

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/internal/manifest"
)

func TestPolicyFileGolden(t *testing.T) {
	t.Parallel()
	for name, spec := range map[string]string{
		"policy-default.yaml": "{}",
		"policy-full.yaml": `{contacts: request, signup: invitation,
			limits: {requestsPerSecond: 1, requestBurst: 2, connectionsPerIP: 3, maxConnections: 4, maxPayloadBytes: 65536,
				messagesPerChannel: 11, loginsPerMinute: 7, lookupsPerMinute: 8, handshakesBeforeRetry: 9, maxInFlightPerDevice: 5, trustedRanges: ["10.1.2.3/8", "2001:db8::/32"]},
			retention: {messages: 1h30m, dedupWindow: 7200s, inbox: 3h, audit: 25h, history: false},
			mls: {keyPackageLifetime: 4h, lastResortLifetime: 25h, maxKeyPackagesPerDevice: 6},
			sessions: {accessTokenTTL: 90s, refreshTokenTTL: 5h, maxAge: 6h},
			access: {clientCertificates: optional, clientCASecretRef: {name: client-ca},
				admins: [{name: "spiffe://example.org/ops", role: cellAdmin}, {name: Ada Auditor, role: auditor}]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := PolicyFile(makeCell(t, spec))
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, got)
		})
	}
}

// The defaults stand in two places, the markers of the API and the policy;
// a server without a cell and a cell without a number must mean the same.
func TestDefaultsOfAPIAndPolicyAgree(t *testing.T) {
	t.Parallel()
	want, err := policy.Default().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sample, err := manifest.Load("../../config/samples/messagingcell.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, cell := range map[string]*v1alpha1.MessagingCell{
		"defaulted by the schema": makeCell(t, "{}"),
		"never defaulted":         {},
		"the sample":              sample,
	} {
		got, err := PolicyFile(cell)
		if err != nil || string(got) != string(want) {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, got, want)
		}
	}
}

// What the API server accepts at the edge of each range, the policy accepts.
func TestPolicyAcceptsTheRangesOfTheAPI(t *testing.T) {
	t.Parallel()
	for name, spec := range map[string]string{
		"least": `{limits: {requestsPerSecond: 1, requestBurst: 1, connectionsPerIP: 1, maxConnections: 1, maxPayloadBytes: 16384, maxInFlightPerDevice: 1,
			messagesPerChannel: 0, loginsPerMinute: 1, lookupsPerMinute: 1, handshakesBeforeRetry: 1},
			retention: {messages: 1h, dedupWindow: 1h, inbox: 1h, audit: 24h}, mls: {keyPackageLifetime: 1h, lastResortLifetime: 24h, maxKeyPackagesPerDevice: 1},
			sessions: {accessTokenTTL: 1m, refreshTokenTTL: 1h, maxAge: 1h}}`,
		"most": `{limits: {requestsPerSecond: 100000, requestBurst: 200000, connectionsPerIP: 100000, maxConnections: 1000000, maxPayloadBytes: 5242880, maxInFlightPerDevice: 4096,
			messagesPerChannel: 1000000, loginsPerMinute: 600000, lookupsPerMinute: 600000, handshakesBeforeRetry: 100000},
			retention: {messages: 8760h, dedupWindow: 2160h, inbox: 8760h, audit: 87600h}, mls: {keyPackageLifetime: 720h, lastResortLifetime: 8760h, maxKeyPackagesPerDevice: 1000},
			sessions: {accessTokenTTL: 24h, refreshTokenTTL: 8760h, maxAge: 87600h},
			access: {clientCertificates: required, clientCAConfigMapRef: {name: a}, admins: [{name: "` + strings.Repeat("é", 253) + `", role: auditor}]}}`,
	} {
		file, err := PolicyFile(makeCell(t, spec))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := policy.Parse(file); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPolicyFileIsWhatItsHashIsOf(t *testing.T) {
	t.Parallel()
	file, err := PolicyFile(makeCell(t, "{contacts: request}"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(file)
	if p.Hash() != hex.EncodeToString(sum[:]) {
		t.Errorf("hash %s, but the file has %x", p.Hash(), sum)
	}
}

func TestPolicyFileRefusesWhatNoAPIServerAccepted(t *testing.T) {
	t.Parallel()
	for want, spec := range map[string]v1alpha1.MessagingCellSpec{
		"spec.limits.trustedRanges[0]": {Limits: v1alpha1.LimitsSpec{TrustedRanges: []string{"x"}}},
		"limits.maxPayloadBytes":       {Limits: v1alpha1.LimitsSpec{MaxPayloadBytes: policy.MaxPayloadBytes + 1}},
		"retention.messages":           {Retention: v1alpha1.RetentionSpec{Messages: metav1.Duration{Duration: time.Second}}},
		"contacts":                     {Contacts: "closed"},
		"signup":                       {Signup: "request"},
		"access.clientCertificates":    {Access: v1alpha1.AccessSpec{ClientCertificates: "always"}},
		"access.admins[0].role":        {Access: v1alpha1.AccessSpec{ClientCertificates: "optional", Admins: []v1alpha1.AdminSpec{{Name: "a", Role: "member"}}}},
	} {
		if _, err := PolicyFile(&v1alpha1.MessagingCell{Spec: spec}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one about %s", err, want)
		}
	}
}
