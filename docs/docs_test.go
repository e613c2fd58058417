// Package docs_test keeps the documents in step with the code: what they quote, name and count is compared with it.
package docs_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/devicelink"
	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/wire"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path) //nolint:gosec // the project's own files.
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// unhex drops comments and spaces and decodes the rest.
func unhex(t *testing.T, text string) []byte {
	t.Helper()
	text = regexp.MustCompile(`#[^\n]*|\s`).ReplaceAllString(text, "")
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// blocks returns the fenced blocks that follow a comment matching pattern, by the comment's first group.
func blocks(text, pattern string) map[string]string {
	found := map[string]string{}
	for _, m := range regexp.MustCompile("(?s)<!-- "+pattern+" -->\n```text\n(.*?)```").FindAllStringSubmatch(text, -1) {
		found[m[1]] = m[2]
	}
	return found
}

func TestProtocolQuotesTheGoldenCaptures(t *testing.T) {
	t.Parallel()
	quoted := blocks(read(t, "protocol.md"), `golden: ([\w-]+)`)
	if len(quoted) < 3 {
		t.Errorf("only %d captures are quoted", len(quoted))
	}
	for name, text := range quoted {
		want := unhex(t, read(t, "../schema/testdata/golden/"+name+".hex"))
		if !bytes.Equal(unhex(t, text), want) {
			t.Errorf("protocol.md shows %s otherwise than schema/testdata/golden/%s.hex", name, name)
		}
		if _, err := wire.Unmarshal(want); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestProtocolShowsAValidCertificate(t *testing.T) {
	t.Parallel()
	text := blocks(read(t, "protocol.md"), `(certificate)`)["certificate"]
	c, err := devicecert.Parse(unhex(t, text))
	if err != nil {
		t.Fatal(err)
	}
	if c.AccountID.String() != strings.Repeat("a1", 16) || c.DeviceID.String() != strings.Repeat("a2", 16) || c.IssuedAt.UnixMilli() != 1772586553600 {
		t.Errorf("it shows %+v, not what the text says", c)
	}
}

func TestProtocolShowsAValidCode(t *testing.T) {
	t.Parallel()
	text := read(t, "protocol.md")
	c := codes.Code(bytes.Repeat([]byte{0x5a}, codes.Size))
	keys := c.Derive(codes.Recovery)
	for _, want := range []string{"`" + c.Format(codes.Recovery) + "` as a recovery code", "`" + hex.EncodeToString(keys.Public()) + "`"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not show %s", want)
		}
	}
}

func TestProtocolShowsAValidLink(t *testing.T) {
	t.Parallel()
	text := read(t, "protocol.md")
	c := codes.Link(bytes.Repeat([]byte{0x5a}, codes.LinkSize))
	keys := c.Derive()
	for _, want := range []string{"Code 10 × `5a` is `" + c.Format() + "`", "the linkId `" + keys.ID.String() + "`", "`" + hex.EncodeToString(keys.Offer) + "`",
		fmt.Sprintf("or to %d,%03d.", devicelink.MaxContent/1000, devicelink.MaxContent%1000)} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not show %s", want)
		}
	}
}

// row returns the cells of the table row whose first cell is name.
func row(t *testing.T, text, name string) []string {
	t.Helper()
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if len(cells) > 1 && cells[0] == name {
			return cells
		}
	}
	t.Errorf("no row %q", name)
	return make([]string, 8)
}

func TestProtocolListsTheLimits(t *testing.T) {
	t.Parallel()
	text := read(t, "protocol.md")
	text = text[strings.Index(text, "\n## Limits"):strings.Index(text, "\n## Errors")]
	for name, limit := range map[string][2]int{
		"`name` (of an account)":                        {1, wire.MaxName},
		"`deviceName`":                                  {0, wire.MaxDeviceName},
		"`client`, `server` in hello":                   {0, wire.MaxClientName},
		"an OPAQUE message":                             {1, wire.MaxOpaque},
		"`wrappedRootKey`":                              {1, wire.MaxWrappedKey},
		"`certificate`":                                 {devicecert.Size, devicecert.Size},
		"`accessToken`, `refreshToken`":                 {1, wire.MaxToken},
		"`oneTime` (KeyPackages in one upload)":         {0, wire.MaxKeyPackages},
		"a KeyPackage in its MLSMessage":                {1, wire.MaxKeyPackage},
		"`packages` in a claim (devices of an account)": {0, wire.MaxDevices},
		"`groupInfo`":                                   {1, wire.MaxGroupInfo},
		"`welcomes`":                                    {0, wire.MaxWelcomes},
		"`welcome`":                                     {1, wire.MaxWelcome},
		"`payload` of an enqueue":                       {1, wire.MaxPayload},
		"`credit` (deliveries)":                         {0, wire.MaxCredit},
		"`acks`":                                        {0, wire.MaxAcks},
		"`token` of adminAuthenticate":                  {0, wire.MaxToken},
		"`count` of adminInvite":                        {1, wire.MaxInvitations},
		"`after`, `next` of an export":                  {0, wire.MaxExportCursor},
		"`lines` of an export":                          {0, wire.MaxExportPage},
		"`recoveryCodes`":                               {0, wire.MaxRecoveryCodes},
		"`offer` (of a device link)":                    {1, wire.MaxLinkOffer},
		"`approval` (of a device link)":                 {1, wire.MaxLinkApproval},
	} {
		if cells := row(t, text, name); cells[1] != fmt.Sprint(limit[0]) || cells[2] != fmt.Sprint(limit[1]) {
			t.Errorf("%s: it says %s to %s, the code %d to %d", name, cells[1], cells[2], limit[0], limit[1])
		}
	}
}

func TestProtocolSaysTheFramesLimits(t *testing.T) {
	t.Parallel()
	text := read(t, "protocol.md")
	for name, want := range map[string]int{"on a control stream": frame.ControlLimit, "alone on a unidirectional stream": wire.MaxFrame} {
		cells := row(t, text, name)
		if got := strings.ReplaceAll(strings.SplitN(cells[1], " ", 2)[0], ",", ""); got != fmt.Sprint(want) {
			t.Errorf("%s: it says %s, the code %d", name, got, want)
		}
	}
	for _, phrase := range []string{fmt.Sprintf("refuses more than **%d**", frame.MaxSegments), fmt.Sprintf("at most **%d** deep", frame.DepthLimit),
		"`" + devicecert.ExporterLabel + "`, empty context, " + fmt.Sprint(devicecert.ExporterSize) + " bytes", fmt.Sprintf("`version` is %d in every", schema.Version)} {
		if !strings.Contains(text, phrase) {
			t.Errorf("protocol.md does not say %q", phrase)
		}
	}
}

func TestProtocolExplainsEveryErrorCallAndPush(t *testing.T) {
	t.Parallel()
	text := read(t, "protocol.md")
	codes, calls := 0, 0
	for ; schema.ErrorCode(codes).String() != ""; codes++ {
		cells := row(t, text, "`"+schema.ErrorCode(codes).String()+"`")
		if len(cells) != 4 || cells[1] == "" || cells[2] != "yes" && cells[2] != "no" || cells[3] == "" {
			t.Errorf("%v: the row is %q", schema.ErrorCode(codes), cells)
		}
	}
	for n := schema.Request_Which(1); !strings.Contains(n.String(), "Which("); n++ {
		calls++
		if !strings.Contains(text, "\n### "+n.String()+"\n") {
			t.Errorf("the call %v has no section", n)
		}
	}
	for n := schema.Push_Which(1); !strings.Contains(n.String(), "Which("); n++ {
		row(t, text, "`"+n.String()+"`")
	}
	for n := schema.GoAway_Reason(0); n.String() != ""; n++ {
		row(t, text, "`"+n.String()+"`")
	}
	if codes < 31 || calls < 17 {
		t.Errorf("only %d codes and %d calls were looked for", codes, calls)
	}
}

func documents(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"*.md", "design/*.md", "../schema/*.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		all = append(all, paths...)
	}
	return all
}

// anchor is how a heading is linked to.
func anchor(heading string) string {
	heading = regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), "")
	return strings.ReplaceAll(heading, " ", "-")
}

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#\s]*)(#[^)]*)?\)`)
	for _, path := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, path), -1) {
			target := path
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(path), m[1])
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
				continue
			}
			if m[2] != "" && !hasHeading(read(t, target), m[2][1:]) {
				t.Errorf("%s links to %s%s, which has no such heading", path, m[1], m[2])
			}
		}
	}
}

func hasHeading(text, want string) bool {
	for line := range strings.Lines(text) {
		if heading, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") && anchor(heading) == want {
			return true
		}
	}
	return false
}

var threatRow = regexp.MustCompile(`(?m)^\| T(\d+) \|.*\|$`)

// Tests and documents cite the rows by number, and the rows cite tests: both must be there.
func TestThreatModelCitesTestsThatExist(t *testing.T) {
	t.Parallel()
	text := read(t, "threat-model.md")
	rows := threatRow.FindAllStringSubmatch(text, -1)
	cited := regexp.MustCompile("`([\\w/-]+): ((?:Test|Fuzz)\\w+)`")
	last := 0
	for _, m := range rows {
		var number int
		if _, err := fmt.Sscan(m[1], &number); err != nil || number <= last {
			t.Errorf("row T%s follows T%d", m[1], last)
		}
		last = number
		cells := strings.Split(strings.Trim(m[0], "|"), "|")
		if len(cells) != 5 {
			t.Errorf("T%s has %d columns", m[1], len(cells))
			continue
		}
		tests := cited.FindAllStringSubmatch(cells[4], -1)
		if len(tests) == 0 && strings.TrimSpace(cells[4]) != "–" {
			t.Errorf("T%s: %q names no test, nor is it a dash", m[1], cells[4])
		}
		for _, c := range tests {
			if !hasTest(t, filepath.Join("..", c[1]), c[2]) {
				t.Errorf("T%s cites %s in %s, which is not there", m[1], c[2], c[1])
			}
		}
	}
	if len(rows) < 40 {
		t.Errorf("only %d rows were found", len(rows))
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.Contains(read(t, path), "func "+name+"(") {
			return true
		}
	}
	return false
}

// VERSIONING.md names the test that enforces each rule.
func TestVersioningNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	names := regexp.MustCompile("`(Test\\w+)[/`]").FindAllStringSubmatch(read(t, "../schema/VERSIONING.md"), -1)
	if len(names) < 10 {
		t.Errorf("only %d tests are named", len(names))
	}
	for _, m := range names {
		found := false
		for _, dir := range []string{"../schema", "../schema/wire", "../schema/frame", "../schema/devicecert", "../schema/opaqueconf", "../schema/codes"} {
			found = found || hasTest(t, dir, m[1])
		}
		if !found {
			t.Errorf("%s is named and is not there", m[1])
		}
	}
}

// The objectives are measured by metrics that the cell has.
func TestSLOsNameMetricsThatExist(t *testing.T) {
	t.Parallel()
	metrics := read(t, "../cell/telemetry/metrics.go")
	names := regexp.MustCompile(`qpq_(\w+)`).FindAllStringSubmatch(read(t, "slo.md"), -1)
	if len(names) < 10 {
		t.Errorf("only %d metrics are named", len(names))
	}
	for _, m := range names {
		if !strings.Contains(metrics, `"`+strings.TrimSuffix(m[1], "_count")+`"`) {
			t.Errorf("the cell has no metric %s", m[0])
		}
	}
}
