package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// FieldError is one thing wrong with a policy file. The errors that Parse and
// Validate return wrap one of these for each wrong field.
type FieldError struct {
	// Path names the field, as in "limits.requestsPerSecond"; it is empty
	// when the file as a whole is meant.
	Path string
	// Problem is what is wrong with it.
	Problem string
	// Remedy is what to write instead.
	Remedy string
}

// Error returns "path: problem; remedy".
func (e *FieldError) Error() string {
	if e.Path == "" {
		return e.Problem + "; " + e.Remedy
	}
	return e.Path + ": " + e.Problem + "; " + e.Remedy
}

// field is one leaf of the file, bound to its place in one Policy. The table
// in Policy.fields is the only list of what a policy file can say.
type field interface {
	// path is the dotted name of the field.
	path() string
	// load takes the value that the decoded file has there.
	load(value any) *FieldError
	// fill replaces a value that was not given by its default.
	fill()
	// check judges the value that stands there now.
	check() *FieldError
}

// fields lists every leaf but history, for which absent and false differ, in
// the order of the file.
func (p *Policy) fields() []field {
	l, r, m, s, a := &p.Limits, &p.Retention, &p.MLS, &p.Sessions, &p.Access
	return []field{
		&word{"version", &p.Version, "", []string{Version}},
		&word{"contacts", (*string)(&p.Contacts), string(ContactsOpen), []string{string(ContactsOpen), string(ContactsRequest)}},
		&word{"signup", (*string)(&p.Signup), string(SignupOpen), []string{string(SignupOpen), string(SignupInvitation), string(SignupClosed)}},
		&number{"limits.requestsPerSecond", &l.RequestsPerSecond, 50, 1, 100_000},
		&number{"limits.requestBurst", &l.RequestBurst, 100, 1, 200_000},
		&number{"limits.loginsPerMinute", &l.LoginsPerMinute, 60, 1, 600_000},
		&number{"limits.lookupsPerMinute", &l.LookupsPerMinute, 60, 1, 600_000},
		&number{"limits.messagesPerChannel", &l.MessagesPerChannel, 0, 0, 1_000_000},
		&number{"limits.connectionsPerIP", &l.ConnectionsPerIP, 50, 1, 100_000},
		&number{"limits.maxConnections", &l.MaxConnections, 10_000, 1, 1_000_000},
		&number{"limits.handshakesBeforeRetry", &l.HandshakesBeforeRetry, 256, 1, 100_000},
		&number{"limits.maxPayloadBytes", &l.MaxPayloadBytes, MaxPayloadBytes, 16 << 10, MaxPayloadBytes},
		&number{"limits.maxInFlightPerDevice", &l.MaxInFlightPerDevice, 256, 1, 4096},
		&prefixes{"limits.trustedRanges", &l.TrustedRanges},
		span("retention.messages", &r.Messages, 168, 1, 8760),
		span("retention.dedupWindow", &r.DedupWindow, 336, 1, 2160),
		span("retention.inbox", &r.Inbox, 720, 1, 8760),
		span("retention.audit", &r.Audit, 9600, 24, 87600),
		&boolean{"retention.history", &r.History},
		&suites{"mls.suites", &m.Suites},
		span("mls.keyPackageLifetime", &m.KeyPackageLifetime, 24, 1, 720),
		span("mls.lastResortLifetime", &m.LastResortLifetime, 720, 24, 8760),
		&number{"mls.maxKeyPackagesPerDevice", &m.MaxKeyPackagesPerDevice, 100, 1, 1000},
		&duration{"sessions.accessTokenTTL", &s.AccessTokenTTL, 15 * time.Minute, time.Minute, MaxAccessTokenTTL},
		span("sessions.refreshTokenTTL", &s.RefreshTokenTTL, 720, 1, 8760),
		span("sessions.maxAge", &s.MaxAge, 2160, 1, 87600),
		&word{"access.clientCertificates", (*string)(&a.ClientCertificates), string(CertificatesNone), []string{string(CertificatesNone), string(CertificatesOptional), string(CertificatesRequired)}},
		&admins{"access.admins", &a.Admins},
	}
}

// MaxAccessTokenTTL is the most that Sessions.AccessTokenTTL can be.
const MaxAccessTokenTTL = 24 * time.Hour

// number is a whole number in [min, max]; zero stands for the default.
type number struct {
	name          string
	at            *int
	def, min, max int
}

func (f *number) path() string { return f.name }

func (f *number) load(value any) *FieldError {
	switch v := value.(type) {
	case int64:
		if v == 0 {
			return nil
		}
		if fault := f.judge(v); fault != nil {
			return fault
		}
		*f.at = int(v)
		return nil
	default:
		return &FieldError{f.name, describe(value) + " is not a whole number", f.remedy()}
	}
}

func (f *number) fill() {
	if *f.at == 0 {
		*f.at = f.def
	}
}

func (f *number) check() *FieldError { return f.judge(int64(*f.at)) }

func (f *number) judge(v int64) *FieldError {
	switch {
	case v < int64(f.min):
		return &FieldError{f.name, fmt.Sprintf("%d is below the least allowed", v), f.remedy()}
	case v > int64(f.max):
		return &FieldError{f.name, fmt.Sprintf("%d is above the most allowed", v), f.remedy()}
	}
	return nil
}

func (f *number) remedy() string {
	return fmt.Sprintf("write a whole number from %d to %d, such as %d", f.min, f.max, f.def)
}

// duration is a span of time in [min, max]; zero stands for the default.
type duration struct {
	name          string
	at            *Duration
	def, min, max time.Duration
}

// span is a duration whose default and bounds are whole hours.
func span(name string, at *Duration, def, lo, hi int) *duration {
	hours := func(n int) time.Duration { return time.Duration(n) * time.Hour }
	return &duration{name, at, hours(def), hours(lo), hours(hi)}
}

func (f *duration) path() string { return f.name }

func (f *duration) load(value any) *FieldError {
	text, ok := value.(string)
	if !ok {
		return &FieldError{f.name, describe(value) + " is not a duration", f.remedy()}
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return &FieldError{f.name, describe(value) + " is not a duration", f.remedy()}
	}
	*f.at = Duration(d)
	return nil
}

func (f *duration) fill() {
	if *f.at == 0 {
		*f.at = Duration(f.def)
	}
}

func (f *duration) check() *FieldError {
	if time.Duration(*f.at) < f.min {
		return &FieldError{f.name, fmt.Sprintf("%s is shorter than allowed", *f.at), f.remedy()}
	}
	if time.Duration(*f.at) > f.max {
		return &FieldError{f.name, fmt.Sprintf("%s is longer than allowed", *f.at), f.remedy()}
	}
	return nil
}

func (f *duration) remedy() string {
	return fmt.Sprintf("write a duration from %s to %s, such as %s (units h, m and s; a day is 24h)",
		Duration(f.min), Duration(f.max), Duration(f.def))
}

// word is one of a few fixed strings; the empty one stands for the default.
type word struct {
	name    string
	at      *string
	def     string
	choices []string
}

func (f *word) path() string { return f.name }

func (f *word) load(value any) *FieldError {
	text, ok := value.(string)
	if !ok {
		return &FieldError{f.name, describe(value) + " is not a string", f.remedy()}
	}
	*f.at = text
	return nil
}

func (f *word) fill() {
	if *f.at == "" {
		*f.at = f.def
	}
}

func (f *word) check() *FieldError {
	switch {
	case *f.at == "":
		return &FieldError{f.name, "is missing", f.remedy()}
	case !slices.Contains(f.choices, *f.at):
		return &FieldError{f.name, describe(*f.at) + " is not known here", f.remedy()}
	}
	return nil
}

func (f *word) remedy() string { return "write " + strings.Join(f.choices, " or ") }

// boolean is true or false. It has no default of its own: see Policy.fields.
type boolean struct {
	name string
	at   *bool
}

func (f *boolean) path() string { return f.name }

func (f *boolean) load(value any) *FieldError {
	b, ok := value.(bool)
	if !ok {
		return &FieldError{f.name, describe(value) + " is neither true nor false", "write true or false"}
	}
	*f.at = b
	return nil
}

func (f *boolean) fill()              {}
func (f *boolean) check() *FieldError { return nil }

// suites is the ciphersuite allowlist, which is fixed.
type suites struct {
	name string
	at   *[]string
}

func (f *suites) path() string { return f.name }

func (f *suites) load(value any) *FieldError {
	list, fault := stringList(f.name, value)
	if fault != nil {
		return fault
	}
	*f.at = list
	return nil
}

func (f *suites) fill() {
	if len(*f.at) == 0 {
		*f.at = []string{SuiteX25519AES128}
	}
}

func (f *suites) check() *FieldError {
	if len(*f.at) == 1 && (*f.at)[0] == SuiteX25519AES128 {
		return nil
	}
	return &FieldError{f.name, "the allowlist is fixed and cannot be changed", "write only " + SuiteX25519AES128 + ", or leave it out"}
}

// prefixes is a list of address ranges, kept masked, sorted and unique so
// that equal policies have equal bytes.
type prefixes struct {
	name string
	at   *[]netip.Prefix
}

func (f *prefixes) path() string { return f.name }

func (f *prefixes) load(value any) *FieldError {
	list, fault := stringList(f.name, value)
	if fault != nil {
		return fault
	}
	*f.at = make([]netip.Prefix, len(list))
	for i, text := range list {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return &FieldError{fmt.Sprintf("%s[%d]", f.name, i), describe(text) + " is not an address range", "write one such as 10.0.0.0/8 or 2001:db8::/32"}
		}
		(*f.at)[i] = prefix
	}
	return nil
}

func (f *prefixes) fill() {
	list := make([]netip.Prefix, 0, len(*f.at))
	for _, r := range *f.at {
		if r.IsValid() {
			list = append(list, r.Masked())
		} else {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, netip.Prefix.Compare)
	*f.at = slices.Compact(list)
}

// maxTrustedRanges bounds the list that is searched for each new connection.
const maxTrustedRanges = 64

func (f *prefixes) check() *FieldError {
	if len(*f.at) > maxTrustedRanges {
		return &FieldError{f.name, fmt.Sprintf("%d ranges are too many", len(*f.at)), fmt.Sprintf("write at most %d, joining adjacent ones", maxTrustedRanges)}
	}
	for i, r := range *f.at {
		switch {
		case !r.IsValid():
			return &FieldError{fmt.Sprintf("%s[%d]", f.name, i), "is not an address range", "write one such as 10.0.0.0/8 or 2001:db8::/32"}
		case r.Addr().Is4In6():
			return &FieldError{fmt.Sprintf("%s[%d]", f.name, i), describe(r.String()) + " is an IPv4 range in IPv6 notation and would match nothing", "write it as IPv4, such as 10.0.0.0/8"}
		}
	}
	return nil
}

func stringList(path string, value any) ([]string, *FieldError) {
	list, ok := value.([]any)
	if !ok {
		return nil, &FieldError{path, describe(value) + " is not a list", "write a list of strings"}
	}
	out := make([]string, len(list))
	for i, item := range list {
		text, ok := item.(string)
		if !ok {
			return nil, &FieldError{fmt.Sprintf("%s[%d]", path, i), describe(item) + " is not a string", "write a list of strings"}
		}
		out[i] = text
	}
	return out, nil
}

// describe names a value in an error, shortened so that a file full of
// garbage does not fill the log.
func describe(value any) string {
	const most = 64
	switch v := value.(type) {
	case string:
		if len(v) > most {
			v = strings.ToValidUTF8(v[:most], "") + "…"
		}
		return fmt.Sprintf("%q", v)
	case map[string]any:
		return "a section"
	case []any:
		return "a list"
	default:
		return fmt.Sprint(v)
	}
}
