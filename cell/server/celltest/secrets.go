package celltest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"

	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/schema/wire"
)

// Secrets are what one test has sent, been sent, and written into files: what must be in no log. At the test's end, all
// that its cells have logged, and its programs have printed, is searched for it.
type Secrets struct {
	mu      sync.Mutex
	names   map[string]bool
	texts   map[string]string // Whole, by what they are.
	bytes   map[string]string // Beginnings, by what they are.
	clients map[string]bool   // Addresses and ports.
	own     map[string]bool   // Addresses that the cells listen on.
}

var known sync.Map // testing.TB to *Secrets.

// SecretsOf returns what t knows.
func SecretsOf(t testing.TB) *Secrets {
	t.Helper()
	s, loaded := known.LoadOrStore(t, &Secrets{names: map[string]bool{}, texts: map[string]string{}, bytes: map[string]string{}, clients: map[string]bool{}, own: map[string]bool{}})
	if !loaded {
		t.Cleanup(func() { known.Delete(t) })
	}
	return s.(*Secrets) //nolint:forcetypeassert // nothing else is stored.
}

const (
	leastName  = 3  // A shorter name is a part of too much.
	leastBytes = 12 // Fewer bytes come about by chance.
	mostBytes  = 18 // So many are looked for: a multiple of three, for base64.
)

// Name adds an account's name.
func (s *Secrets) Name(name string) {
	if len(name) >= leastName {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.names[name] = true
	}
}

// Text adds a text that must not be in a log in any way, such as a password.
func (s *Secrets) Text(what, text string) {
	if len(text) >= leastName {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.texts[text] = what
	}
}

// Bytes adds bytes, such as a token. Few are passed over.
func (s *Secrets) Bytes(what string, b []byte) {
	if len(b) < leastBytes || allEqual(b) { // Made-up messages are often so, and so is much else.
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes[string(b[:min(len(b), mostBytes)/3*3])] = what
}

func allEqual(b []byte) bool { return bytes.Count(b, b[:1]) == len(b) }

// Client adds a client's address.
func (s *Secrets) Client(a net.Addr) {
	udp, ok := a.(*net.UDPAddr)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients[fmt.Sprintf(":%d", udp.Port)] = true
	if ip := udp.AddrPort().Addr().Unmap(); ip.IsValid() && !ip.IsUnspecified() && ip != netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
		s.clients[ip.String()] = true
	}
}

// Own adds an address that a cell listens on, which its log may have.
func (s *Secrets) Own(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own[strings.TrimPrefix(address, "http://")] = true
}

// Learn adds what a message has: names, and bytes that are no ids.
func (s *Secrets) Learn(body any) { s.learn(reflect.ValueOf(body), "") }

func (s *Secrets) learn(v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			s.learn(v.Elem(), path)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[wire.Error]() {
			return
		}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				s.learn(v.Field(i), v.Type().Name()+"."+f.Name)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			s.Bytes(path, v.Bytes())
			return
		}
		for i := range v.Len() {
			s.learn(v.Index(i), path)
		}
	case reflect.String:
		switch {
		case strings.HasSuffix(path, ".Name"), strings.HasSuffix(path, ".DeviceName"):
			s.Name(v.String())
		case strings.HasSuffix(path, ".Codes"):
			s.Text(path, v.String())
		}
	default:
	}
}

// cell adds what is in a cell's own files.
func (s *Secrets) cell(t testing.TB, c *Cell) {
	t.Helper()
	b, err := os.ReadFile(c.path("keys.yaml"))
	must(t, err)
	var keys cellkeys.Keys
	must(t, yaml.Unmarshal(b, &keys))
	s.Learn(&keys)
	s.Bytes("the key of names", keys.NameIndex)
	b, err = os.ReadFile(c.path("tls.key"))
	must(t, err)
	if block, _ := pem.Decode(b); block != nil {
		s.Bytes("the TLS key", block.Bytes[len(block.Bytes)-mostBytes:])
	}
	if uri, err := url.Parse(c.Database); err == nil {
		if password, ok := uri.User.Password(); ok {
			s.Text("the database's password", password)
		}
	}
}

var (
	// A version or a time has no four numbers with points between.
	anyAddress = regexp.MustCompile(`\b[0-9]{1,3}(\.[0-9]{1,3}){3}(:[0-9]+)?\b|\[[0-9a-fA-F:]*::[0-9a-fA-F:]*\]`)
	undecided  = regexp.MustCompile(`\(a text under a key that is not in the vocabulary\)|\([^()" ]* is not logged\)`)
)

// Leaks says what of it is in a log, line by line, and what else no log may have.
func (s *Secrets) Leaks(log string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []string
	lower := strings.ToLower(log)
	note := func(what, needle string) {
		i := strings.Index(lower, strings.ToLower(needle))
		found = append(found, what+" in: "+lineAt(log, i))
	}
	for name := range s.names {
		if m := regexp.MustCompile(`(?i)(^|[^0-9A-Za-z])` + regexp.QuoteMeta(name) + `($|[^0-9A-Za-z])`).FindString(log); m != "" {
			note(fmt.Sprintf("the name %q", name), m)
		}
	}
	for text, what := range s.texts {
		if strings.Contains(log, text) {
			note(what, text)
		}
	}
	for b, what := range s.bytes {
		for _, form := range encodings([]byte(b)) {
			if strings.Contains(log, form) || form == hex.EncodeToString([]byte(b)) && strings.Contains(lower, form) {
				note(what, form)
				break
			}
		}
	}
	found = append(found, s.addresses(log)...)
	if i := strings.Index(log, "PRIVATE KEY"); i >= 0 {
		found = append(found, "a private key in: "+lineAt(log, i))
	}
	if m := undecided.FindString(log); m != "" {
		note("something that internal/logging does not let through: log an id, a number, or a text under a key of its vocabulary", m)
	}
	slices.Sort(found)
	return found
}

// addresses finds those of clients, and any that no cell of the test listens on.
func (s *Secrets) addresses(log string) (found []string) {
	for _, place := range anyAddress.FindAllStringIndex(log, -1) {
		if a := log[place[0]:place[1]]; !s.own[a] && !s.own["udp "+a] {
			found = append(found, fmt.Sprintf("the address %s in: %s", a, lineAt(log, place[0])))
		}
	}
	for a := range s.clients {
		if m := regexp.MustCompile(regexp.QuoteMeta(a) + `\b`).FindStringIndex(log); m != nil && !s.own["127.0.0.1"+a] {
			found = append(found, fmt.Sprintf("a client's address %s in: %s", a, lineAt(log, m[0])))
		}
	}
	return found
}

// encodings are the ways in which bytes get into a log.
func encodings(b []byte) []string {
	var decimal []string
	for _, c := range b {
		decimal = append(decimal, fmt.Sprint(c))
	}
	quoted := fmt.Sprintf("%q", b)
	return []string{hex.EncodeToString(b), base64.StdEncoding.EncodeToString(b), base64.URLEncoding.EncodeToString(b), string(b), quoted[1 : len(quoted)-1],
		strings.Join(decimal, " "), strings.Join(decimal, ",")}
}

func lineAt(log string, i int) string {
	if i < 0 {
		return ""
	}
	from := strings.LastIndexByte(log[:i], '\n') + 1
	line, _, _ := strings.Cut(log[from:], "\n")
	return line
}

// Check fails the test if a log holds something of s.
func (s *Secrets) Check(t testing.TB, who, log string) {
	t.Helper()
	for i, leak := range s.Leaks(log) {
		if i == 5 {
			t.Errorf("%s: and more", who)
			return
		}
		t.Errorf("%s logged %s", who, leak)
	}
}

// CheckProgram is Check for what a program prints, on both of its outputs: to whom it belongs it may tell names and addresses.
func (s *Secrets) CheckProgram(t testing.TB, args []string, printed string) {
	t.Helper()
	s.mu.Lock()
	only := &Secrets{texts: s.texts, bytes: s.bytes}
	s.mu.Unlock()
	for _, leak := range only.Leaks(printed) {
		if !strings.HasPrefix(leak, "the address ") {
			t.Errorf("%q printed %s", args, leak)
		}
	}
}
