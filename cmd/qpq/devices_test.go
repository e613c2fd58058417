package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"rsc.io/qr"

	"quicproquo.dev/client"
	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/ids"
)

func TestNoticesAreSentences(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	device := ids.ID{0xab, 0xcd, 0xef, 1, 2}
	for want, m := range map[string]client.Message{
		"bob added a device (abcdef01)":                                 {From: "bob", Notice: &client.Notice{Kind: client.DeviceAdded, Device: device}},
		"bob revoked a device (abcdef01)":                               {From: "bob", Notice: &client.Notice{Kind: client.DeviceRevoked, Device: device}},
		"bob deleted the account":                                       {From: "bob", Notice: &client.Notice{Kind: client.AccountDeleted}},
		"the cell says that bob started over with other keys":           {From: "bob", Notice: &client.Notice{Kind: client.RootKeyReset}},
		`the cell says something of b\x1bob that needs a newer program`: {From: "b\x1bob", Notice: &client.Notice{Kind: "new"}},
		"your account has a new device (abcdef01); if it is not yours: qpq devices revoke abcdef01, and qpq passwd":          {Notice: &client.Notice{Kind: client.DeviceAdded, Own: true, Device: device}},
		`your account has a new device (pho\rne, abcdef01); if it is not yours: qpq devices revoke abcdef01, and qpq passwd`: {Notice: &client.Notice{Kind: client.DeviceAdded, Own: true, Device: device, DeviceName: "pho\rne"}},
		"your device (phone, abcdef01) was revoked":                          {Notice: &client.Notice{Kind: client.DeviceRevoked, Own: true, Device: device, DeviceName: "phone"}},
		"your account was deleted":                                           {Notice: &client.Notice{Kind: client.AccountDeleted, Own: true}},
		"the cell says something of your account that needs a newer program": {Notice: &client.Notice{Kind: "new", Own: true}},
	} {
		m.AcceptedAt = at
		var out, stderr writes
		p := &program{stdout: &out, stderr: &stderr}
		if err := p.printMessage(m); err != nil || stderr.Len() > 0 || out.calls != 1 || !strings.HasSuffix(out.String(), "  * "+want+"\n") {
			t.Errorf("%v: printed %q and %q, want %q", err, out.String(), stderr.String(), want)
		}
	}
	var out writes
	p := &program{stdout: &out}
	p.flags.json = true
	m := client.Message{From: "bob", Account: ids.ID{1}, AcceptedAt: at, Notice: &client.Notice{Kind: client.DeviceAdded, Device: device}}
	if err := p.printMessage(m); err != nil || out.String() != `{"notice":"deviceAdded","account":"01000000000000000000000000000000","name":"bob","own":false,"device":"`+device.String()+`","at":"2026-01-02T03:04:05.000Z"}`+"\n" {
		t.Errorf("%v, %q", err, out.String())
	}
}

func TestDevicesAreListed(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	for want, d := range map[string]client.Device{
		"abcd0000  phone  added 2026-01-02, seen 2026-01-02  (this device)\n":                                                             {ID: ids.ID{0xab, 0xcd}, Name: "phone", AddedAt: at, SeenOn: at, This: true, Certified: true},
		`01000000  x\x1b  added 2026-01-02, never seen  WARNING: the account's key does not vouch for it; nobody will write to it` + "\n": {ID: ids.ID{1}, Name: "x\x1b", AddedAt: at},
	} {
		var out bytes.Buffer
		if err := (&program{stdout: &out}).printDevice(d); err != nil || out.String() != want {
			t.Errorf("%v: %q, want %q", err, out.String(), want)
		}
	}
}

func TestConfirm(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]error{"yes": nil, " YES ": nil, "y": errNotMeant, "": errNotMeant, "no": errNotMeant} {
		if err := makeProgram(nil, answer).confirm("Sure?", false); !errors.Is(err, want) {
			t.Errorf("%q: %v", answer, err)
		}
	}
	h := makeProgram(nil)
	var usage usageError
	if err := h.confirm("Sure?", false); !errors.As(err, &usage) {
		t.Errorf("without a terminal: %v", err)
	}
	if err := h.confirm("Sure?", true); err != nil || len(h.asked) != 1 {
		t.Errorf("with --yes: %v, asked %q", err, h.asked)
	}
}

// A terminal's half blocks are read back as the QR code that they draw, margin and all.
func TestDraw(t *testing.T) {
	t.Parallel()
	text := strings.ToUpper(codes.NewLink().QR())
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		t.Fatal(err)
	}
	if code.Size > 29 {
		t.Errorf("%d modules wide: not all characters are of QR's alphanumeric mode", code.Size)
	}
	lines := strings.Split(strings.TrimSuffix(draw(text), "\n\n"), "\n")
	if len(lines) != (code.Size+9)/2 {
		t.Fatalf("%d lines for %d modules", len(lines), code.Size)
	}
	for row, line := range lines {
		halves := []rune(strings.TrimSuffix(strings.TrimPrefix(line, "\x1b[40;97m"), "\x1b[0m"))
		if len(halves) != code.Size+8 {
			t.Fatalf("line %d has %d characters", row, len(halves))
		}
		for x, r := range halves {
			above, below := strings.ContainsRune(" ▄", r), strings.ContainsRune(" ▀", r) // Dark.
			if above != code.Black(x-4, 2*row-4) || below != code.Black(x-4, 2*row-3) {
				t.Fatalf("line %d, column %d: %q", row, x, r)
			}
		}
	}
	if draw(strings.Repeat("x", 1<<14)) != "" {
		t.Error("a text that is too long was drawn")
	}
	if drawn := (&program{stdout: &bytes.Buffer{}}).drawn(text); drawn != "" {
		t.Error("a pipe got a picture")
	}
}

func TestRevokedIsExplained(t *testing.T) {
	t.Parallel()
	f, exit := describe(client.ErrRevoked)
	if f.Code != "deviceRevoked" || exit != exitFailed || !strings.Contains(f.Message, "qpq devices add --profile DIR") {
		t.Errorf("%+v", f)
	}
	if f, _ = describe(errNotMeant); f.Code != "notConfirmed" {
		t.Errorf("%+v", f)
	}
}

func TestUsageOfDevices(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"devices", "nope"}, {"devices", "approve"}, {"devices", "rename", "x"}, {"devices", "revoke"}, {"devices", "add", "x"}} {
		h := makeProgram(nil)
		if exit := h.run(t.Context(), args); exit != exitUsage || h.err.Len() == 0 {
			t.Errorf("%v: exit %d, %q", args, exit, h.err.String())
		}
	}
}
