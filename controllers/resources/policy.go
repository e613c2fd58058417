package resources

import (
	"fmt"
	"net/netip"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/cell/policy"
)

// PolicyFile returns the policy file of a cell in canonical bytes: its
// SHA-256 is the policy's hash. Fields that the cell leaves at zero take the
// defaults of the policy, so that a cell that no API server has defaulted
// gives the same file. The error names what the policy refuses; it cannot
// come from a cell that the API server accepted.
func PolicyFile(cell *v1alpha1.MessagingCell) ([]byte, error) {
	trusted, err := trustedRanges(cell.Spec.Limits.TrustedRanges)
	if err != nil {
		return nil, fmt.Errorf("build policy of %s: %w", cell.Name, err)
	}
	p := &policy.Policy{
		Contacts:  policy.ContactMode(cell.Spec.Contacts),
		Signup:    policy.SignupMode(cell.Spec.Signup),
		Limits:    limits(&cell.Spec.Limits, trusted),
		Retention: retention(&cell.Spec.Retention),
		MLS:       mls(&cell.Spec.MLS),
		Sessions:  sessions(&cell.Spec.Sessions),
		Access:    access(&cell.Spec.Access),
	}
	b, err := p.Marshal()
	if err != nil {
		return nil, fmt.Errorf("build policy of %s: %w", cell.Name, err)
	}
	return b, nil
}

func limits(spec *v1alpha1.LimitsSpec, trusted []netip.Prefix) policy.Limits {
	return policy.Limits{
		RequestsPerSecond:     int(spec.RequestsPerSecond),
		RequestBurst:          int(spec.RequestBurst),
		LoginsPerMinute:       int(spec.LoginsPerMinute),
		LookupsPerMinute:      int(spec.LookupsPerMinute),
		MessagesPerChannel:    int(spec.MessagesPerChannel),
		ConnectionsPerIP:      int(spec.ConnectionsPerIP),
		MaxConnections:        int(spec.MaxConnections),
		HandshakesBeforeRetry: int(spec.HandshakesBeforeRetry),
		MaxPayloadBytes:       int(spec.MaxPayloadBytes),
		MaxInFlightPerDevice:  int(spec.MaxInFlightPerDevice),
		TrustedRanges:         trusted,
	}
}

func retention(spec *v1alpha1.RetentionSpec) policy.Retention {
	return policy.Retention{
		Messages:    policy.Duration(spec.Messages.Duration),
		DedupWindow: policy.Duration(spec.DedupWindow.Duration),
		Inbox:       policy.Duration(spec.Inbox.Duration),
		Audit:       policy.Duration(spec.Audit.Duration),
		History:     spec.History == nil || *spec.History,
	}
}

func mls(spec *v1alpha1.MLSSpec) policy.MLS {
	return policy.MLS{
		KeyPackageLifetime:      policy.Duration(spec.KeyPackageLifetime.Duration),
		LastResortLifetime:      policy.Duration(spec.LastResortLifetime.Duration),
		MaxKeyPackagesPerDevice: int(spec.MaxKeyPackagesPerDevice),
	}
}

func sessions(spec *v1alpha1.SessionsSpec) policy.Sessions {
	return policy.Sessions{
		AccessTokenTTL:  policy.Duration(spec.AccessTokenTTL.Duration),
		RefreshTokenTTL: policy.Duration(spec.RefreshTokenTTL.Duration),
		MaxAge:          policy.Duration(spec.MaxAge.Duration),
	}
}

func access(spec *v1alpha1.AccessSpec) policy.Access {
	a := policy.Access{ClientCertificates: policy.CertificateMode(spec.ClientCertificates)}
	for _, admin := range spec.Admins {
		a.Admins = append(a.Admins, policy.Admin{Name: admin.Name, Role: policy.AdminRole(admin.Role)})
	}
	return a
}

func trustedRanges(texts []string) ([]netip.Prefix, error) {
	ranges := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		r, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("spec.limits.trustedRanges[%d]: %w", i, err)
		}
		ranges[i] = r
	}
	return ranges, nil
}
