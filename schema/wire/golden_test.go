package wire

import (
	"bytes"
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "capture golden files that are not there; those that are never change")

const (
	goldenDir  = "../testdata/golden"  // What this code writes.
	foreignDir = "../testdata/foreign" // What others write, or will.
)

// parseHex reads a capture: hex digits, spaces as you like, comments after #.
func parseHex(text string) ([]byte, error) {
	var digits strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	return hex.DecodeString(digits.String())
}

// formatHex writes two words of Cap'n Proto on each line.
func formatHex(b []byte) string {
	var out strings.Builder
	for i, v := range b {
		switch {
		case i%16 == 0 && i > 0:
			out.WriteByte('\n')
		case i%8 == 0 && i > 0:
			out.WriteString("  ")
		case i > 0:
			out.WriteByte(' ')
		}
		fmt.Fprintf(&out, "%02x", v)
	}
	out.WriteByte('\n')
	return out.String()
}

func readCapture(t *testing.T, dir, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := parseHex(string(text))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

// capture writes a file that is not there yet, when -update asks for it.
func capture(t *testing.T, path, content string) {
	t.Helper()
	if _, err := os.Stat(path); err == nil || !*update {
		return
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil { //nolint:gosec // it is no secret.
		t.Fatal(err)
	}
	t.Logf("captured %s", path)
}

// grown are the captures of structs that have got fields since. Who sends them is older than this code, which reads
// them as before and writes the same values in a longer struct.
var grown = map[string]bool{"request-signup-start": true, "request-signup-finish": true, "request-login-start": true,
	"response-signup-start": true, "response-login-finish": true, "response-channel": true, "response-channel-without-group": true}

// filled are those of structs that have got fields in room that they had: the bytes are the same, capnp's text is not.
var filled = map[string]bool{"request-subscribe": true}

func goldenSamples() []sample { return append(samples(), variants()...) }

// The captured bytes are what peers in the field send and expect: they read as what they were written from, and
// today's encoder still writes the same.
func TestGolden(t *testing.T) {
	t.Parallel()
	for _, s := range goldenSamples() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			now := mustMarshal(t, s.env)
			header := fmt.Sprintf("# %s, schema version 1, correlation id %d, %d bytes.\n", s.name, s.env.CorrelationID, len(now))
			capture(t, filepath.Join(goldenDir, s.name+".hex"), header+formatHex(now))
			captured := readCapture(t, goldenDir, s.name)
			got, err := Unmarshal(captured)
			if err != nil || !reflect.DeepEqual(got, s.env) {
				t.Errorf("the capture reads as %s, error %v; it was written from %s", showBody(got.Body), err, showBody(s.env.Body))
			}
			if bytes.Equal(now, captured) == grown[s.name] {
				t.Errorf("today's encoder writes\n%sbut what was captured, and never changes, is\n%s", formatHex(now), formatHex(captured))
			}
		})
	}
}

func showBody(b Body) string {
	if b == nil {
		return "nothing"
	}
	return fmt.Sprintf("%T %+v", b, reflect.ValueOf(b).Elem())
}

// A capture without its value is one that nobody checks any more.
func TestEveryCaptureIsChecked(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, s := range goldenSamples() {
		known[s.name] = true
	}
	paths, err := filepath.Glob(filepath.Join(goldenDir, "*"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d captures, %v", len(paths), err)
	}
	for _, path := range paths {
		name, extension, _ := strings.Cut(filepath.Base(path), ".")
		if !known[name] || extension != "hex" && extension != "txt" {
			t.Errorf("%s belongs to no sample of this test: a capture may not be dropped, nor renamed", path)
		}
	}
}

// tool runs Debian's capnp in the schema's folder.
func tool(t *testing.T, stdin []byte, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	std := strings.TrimSpace(string(run(ctx, t, nil, "go", "list", "-m", "-f", "{{.Dir}}/std", "capnproto.org/go/capnp/v3")))
	return run(ctx, t, stdin, "capnp", append([]string{args[0], "-I" + std}, args[1:]...)...)
}

func run(ctx context.Context, t *testing.T, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	var out, problems bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // the test's own arguments.
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = "..", bytes.NewReader(stdin), &out, &problems
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, problems.Bytes())
	}
	return out.Bytes()
}

// needTool skips when the C++ implementation is not installed, and says what was therefore not tested.
func needTool(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("capnp"); err != nil {
		t.Skip("NOT TESTED: that the C++ implementation of Cap'n Proto reads and writes the captured messages as we do. " +
			"It needs the program capnp (Debian: apt-get install capnproto).")
	}
}

// The C++ implementation reads every captured message as the text beside it, and writes a message from that text
// that we read as the same value.
func TestGoldenAgainstAnotherImplementation(t *testing.T) {
	t.Parallel()
	needTool(t)
	for _, s := range goldenSamples() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(goldenDir, s.name+".txt")
			text := tool(t, readCapture(t, goldenDir, s.name), "decode", "--short", "envelope.capnp", "Envelope")
			capture(t, path, string(text))
			want, err := os.ReadFile(path) //nolint:gosec // a file of the test's own.
			if err != nil {
				t.Fatal(err)
			}
			if !grown[s.name] && !filled[s.name] && !bytes.Equal(bytes.TrimSpace(text), bytes.TrimSpace(want)) {
				t.Errorf("capnp reads\n%sbut %s says\n%s", text, path, want)
			}
			written := tool(t, want, "encode", "envelope.capnp", "Envelope")
			if got, err := Unmarshal(written); err != nil || show(got) != show(s.env) {
				t.Errorf("what capnp writes from the text reads as %s, error %v; want %s", showBody(got.Body), err, showBody(s.env.Body))
			}
		})
	}
}

// Messages that this code cannot write. foreign/*.hex hold them; the C++ ones were written by capnp 0.9.2.
func TestForeignCaptures(t *testing.T) {
	t.Parallel()
	payload := append(pattern(0x5a, 5000), pattern(0xa5, 4000)...)
	cases := []struct {
		name string
		want Envelope
		code Code // Of the error, when there is no body.
	}{
		{"cpp-enqueue-several-segments", Envelope{CorrelationID: 4660, Body: &EnqueueRequest{ChannelID: dm, Generation: 7,
			DeliveryID: deliveryID, Payload: payload}}, 0},
		{"version-2", Envelope{CorrelationID: 4661}, CodeUnsupportedVersion},
		{"request-to-come", Envelope{CorrelationID: 4662, Body: &SetPasswordStartRequest{RegistrationRequest: []byte("c\x00")}}, 0}, // It has come.
		{"request-far-to-come", Envelope{CorrelationID: 4662}, CodeUnknownMethod},
		{"enqueue-with-fields-to-come", Envelope{CorrelationID: 4663, Body: &EnqueueRequest{ChannelID: dm, Generation: 7,
			DeliveryID: deliveryID, Payload: pattern(0x4e, 50)}}, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := Unmarshal(readCapture(t, foreignDir, c.name))
			if c.want.Body == nil {
				checkError(t, err, c.code, "", "")
			} else if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("read as %d, %s", got.CorrelationID, showBody(got.Body))
			}
		})
	}
}
