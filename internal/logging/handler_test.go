package logging

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/schema/ids"
)

// logged returns the attributes of one line.
func logged(t *testing.T, o Options, log func(*slog.Logger)) map[string]any {
	t.Helper()
	var b bytes.Buffer
	log(New(&b, o))
	var line map[string]any
	if err := json.Unmarshal(b.Bytes(), &line); err != nil {
		t.Fatalf("%v: %s", err, &b)
	}
	return line
}

type enumeration int

func (enumeration) String() string { return "second" }

type record struct{ Name, Token string }

type valuer struct{ secret string }

func (valuer) LogValue() slog.Value { return slog.StringValue("what it says itself") }

const secret = "S3cret-of-somebody"

func TestWhatIsLogged(t *testing.T) {
	t.Parallel()
	id := ids.ID{1, 2}
	for name, x := range map[string]struct {
		key   string
		value any
		want  any
	}{
		"an id":                       {"account", id, id.String()},
		"a number":                    {"rows", 7, 7.0},
		"a truth value":               {"othersEnd", true, true},
		"a duration":                  {"patience", time.Second, 1e9},
		"an enumeration":              {"state", enumeration(2), "second"},
		"a text of the vocabulary":    {"method", "enqueue", "enqueue"},
		"texts of the vocabulary":     {"partitions", []string{"messages_20260101"}, []any{"messages_20260101"}},
		"a digest":                    {"hash", strings.Repeat("0a", 32), strings.Repeat("0a", 32)},
		"an own address":              {"quic", Own(netip.MustParseAddrPort("192.0.2.1:4201")), "192.0.2.1:4201"},
		"an error":                    {"error", errors.New("it failed"), "it failed"},
		"a value that says it itself": {"reason", valuer{secret}, "what it says itself"},
		"nothing":                     {"error", nil, nil},

		"a text":                  {"name", secret, "(a text under a key that is not in the vocabulary)"},
		"texts":                   {"names", []string{secret}, []any{"(a text under a key that is not in the vocabulary)"}},
		"a text of a type":        {"name", wordy(secret), "(a text under a key that is not in the vocabulary)"},
		"an error elsewhere":      {"cause", errors.New(secret), "(a text under a key that is not in the vocabulary)"},
		"bytes":                   {"error", []byte(secret), "([]uint8 is not logged)"},
		"an array":                {"error", [4]byte{1, 2, 3, 4}, "([4]uint8 is not logged)"},
		"a key":                   {"key", ed25519.PublicKey(secret), "(ed25519.PublicKey is not logged)"},
		"a client's address":      {"error", netip.MustParseAddr("192.0.2.9"), "(netip.Addr is not logged)"},
		"another":                 {"from", netip.MustParseAddrPort("192.0.2.9:5"), "(netip.AddrPort is not logged)"},
		"a net.Addr":              {"from", &net.UDPAddr{IP: net.IPv4(192, 0, 2, 9)}, "(*net.UDPAddr is not logged)"},
		"an old IP":               {"from", net.IPv4(192, 0, 2, 9), "(net.IP is not logged)"},
		"a structure":             {"error", record{secret, secret}, "(logging.record is not logged)"},
		"a pointer":               {"error", &record{secret, secret}, "(*logging.record is not logged)"},
		"a map":                   {"error", map[string]string{secret: secret}, "(map[string]string is not logged)"},
		"anything":                {"error", []any{secret}, "([]interface {} is not logged)"},
		"a function":              {"error", func() {}, "(func() is not logged)"},
		"an address in an error":  {"error", fmt.Errorf("write udp 10.0.0.1:4201->192.0.2.9:555: %w", errors.New("no")), "write udp (address)->(address): no"},
		"an IPv6 address":         {"error", errors.New("from [2001:db8::7]:99"), "from (address)"},
		"a bare IPv6 address":     {"error", errors.New("from 2001:db8::7%eth0. And so on"), "from (address). And so on"},
		"a password in a URI":     {"error", errors.New("postgres://quicproquo:" + secret + "@db/x"), "postgres://(credentials)@db/x"},
		"a key in PEM":            {"error", errors.New("x -----BEGIN PRIVATE KEY-----\nMC4C\n-----END PRIVATE KEY----- y"), "x (PEM) y"},
		"half a key in PEM":       {"error", errors.New("x -----BEGIN EC PRIVATE KEY-----\nMC4C"), "x (PEM)"},
		"bytes in hex":            {"error", errors.New("token " + hex.EncodeToString([]byte(secret+secret))), "token (bytes)"},
		"bytes in base64":         {"error", errors.New("token " + base64.StdEncoding.EncodeToString([]byte(secret+secret))), "token (bytes)"},
		"times are no addresses":  {"error", errors.New("at 12:34:56, 2026-01-02T03:04:05Z"), "at 12:34:56, 2026-01-02T03:04:05Z"},
		"nor is a path":           {"error", errors.New("/var/lib/quicproquo/some-long-directory-name/messages"), "/var/lib/quicproquo/some-long-directory-name/messages"},
		"nor is an id":            {"error", errors.New("channel " + id.String()), "channel " + id.String()},
		"nor is where one begins": {"error", errors.New("listen udp 0.0.0.0:4201: in use"), "listen udp 0.0.0.0:4201: in use"},
	} {
		got := logged(t, Options{}, func(l *slog.Logger) { l.Info("x", x.key, x.value) }) //nolint:sloglint // the table's.
		if fmt.Sprint(got[x.key]) != fmt.Sprint(x.want) {
			t.Errorf("%s: %v, want %v", name, got[x.key], x.want)
		}
		with := logged(t, Options{}, func(l *slog.Logger) { l.With(x.key, x.value).Info("x") })
		if fmt.Sprint(with[x.key]) != fmt.Sprint(x.want) {
			t.Errorf("%s, by With: %v, want %v", name, with[x.key], x.want)
		}
		group := logged(t, Options{}, func(l *slog.Logger) { l.Info("x", slog.Group("g", slog.Any(x.key, x.value))) })
		if g, _ := group["g"].(map[string]any); fmt.Sprint(g[x.key]) != fmt.Sprint(x.want) {
			t.Errorf("%s, in a group: %v, want %v", name, group, x.want)
		}
	}
}

type wordy string

func TestMessagesAreCleanedToo(t *testing.T) {
	t.Parallel()
	got := logged(t, Options{}, func(l *slog.Logger) { l.Info(fmt.Sprintf("from %s", netip.MustParseAddr("192.0.2.9"))) }) //nolint:sloglint // somebody else's.
	if got["msg"] != "from (address)" {
		t.Errorf("%v", got)
	}
}

// What the libraries of the operator log: object names, and nothing that holds an object.
func TestOpen(t *testing.T) {
	t.Parallel()
	type key struct{ Namespace, Name string }
	type object struct {
		key
		Data map[string][]byte
	}
	for name, x := range map[string]struct {
		value any
		want  string
	}{
		"a text":     {"demo", "demo"},
		"an address": {"https://10.0.0.1:6443/api", "https://(address)/api"},
		"a name":     {key{"chat", "demo"}, "{Namespace:chat Name:demo}"},
		"an object":  {object{key{"chat", "demo"}, map[string][]byte{"x": []byte(secret)}}, "(logging.object is not logged)"},
		"a pointer":  {&key{"chat", secret}, "(*logging.key is not logged)"},
		"bytes":      {[]byte(secret), "([]uint8 is not logged)"},
	} {
		got := logged(t, Options{Open: true}, func(l *slog.Logger) { l.Info("x", "anything", x.value) })
		if got["anything"] != x.want {
			t.Errorf("%s: %v, want %v", name, got["anything"], x.want)
		}
	}
}

func TestLevelsAndText(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	l := New(&b, Options{Level: slog.LevelWarn, Text: true}).WithGroup("g")
	l.Info("no")
	l.WarnContext(context.Background(), "yes", "name", secret)
	if got := b.String(); strings.Contains(got, "no\n") || !strings.Contains(got, "msg=yes") || strings.Contains(got, secret) {
		t.Errorf("%s", got)
	}
}

// numberOf keeps the compiler from seeing what comes.
func numberOf(key [32]byte) int { return int(key[0]) }

func panicking(key [32]byte, text string, value any) (out string) {
	defer func() { out = Panic(recover()) + "\n" + Stack(1) }()
	if value != nil {
		panic(value)
	}
	return text[:len(text)+numberOf(key)]
}

func TestPanicsTellNothingOfTheirValues(t *testing.T) {
	t.Parallel()
	key := [32]byte([]byte(secret + "and a key of 32 bytes"))
	for _, value := range []any{secret, errors.New(secret), record{secret, secret}, []byte(secret), nil} {
		got := panicking(key, secret, value)
		if strings.Contains(got, secret) || strings.Contains(got, "0x53") || strings.Contains(got, hex.EncodeToString(key[:4])) {
			t.Errorf("%v", got)
		}
		if !strings.Contains(got, "logging.panicking") || !strings.Contains(got, "handler_test.go:") {
			t.Errorf("it does not say where: %s", got)
		}
	}
	if got := panicking(key, secret, nil); !strings.Contains(got, "slice bounds out of range") {
		t.Errorf("an error of the runtime: %s", got)
	}
}

// What is below debug is the content of requests, in Kubernetes' client.
func TestNothingBelowDebugIsLogged(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	l := New(&b, Options{Level: slog.LevelDebug - 8, Open: true})
	l.Log(t.Context(), slog.LevelDebug-4, secret)
	if b.Len() > 0 || l.Enabled(t.Context(), slog.LevelDebug-1) || !l.Enabled(t.Context(), slog.LevelDebug) {
		t.Errorf("%s", &b)
	}
}
