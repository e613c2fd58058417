package limits

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"quicproquo.dev/schema/wire"
)

// The costs of the protocol's document are the code's.
func TestTheDocumentSaysTheCosts(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(b), "\n### Rates\n")
	if !ok {
		t.Fatal("there is no section about rates")
	}
	requests := map[string]wire.Request{}
	for _, r := range []wire.Request{&wire.AckRequest{}, &wire.SignupStartRequest{}, &wire.LoginStartRequest{}, &wire.RecoverRequest{}, &wire.GetAccountRequest{},
		&wire.SignupFinishRequest{}, &wire.StartSessionRequest{}, &wire.RefreshSessionRequest{}, &wire.SetPasswordStartRequest{}, &wire.SetPasswordFinishRequest{},
		&wire.SetRecoveryCodesRequest{}, &wire.ResetAccountRequest{}, &wire.ClaimKeyPackagesRequest{}, &wire.UploadKeyPackagesRequest{},
		&wire.CreateGroupRequest{}, &wire.EnqueueRequest{}, &wire.CommitRequest{}, &wire.ProposeRequest{}, &wire.OpenGroupRequest{}, &wire.GetGroupInfoRequest{},
		&wire.StartDeviceLinkRequest{}, &wire.ApproveDeviceLinkRequest{}, &wire.FinishDeviceLinkRequest{},
		&wire.RevokeDeviceRequest{}, &wire.AdminAuthenticateRequest{}, &wire.AdminInviteRequest{},
		&wire.AdminExportAuditRequest{}, &wire.AdminDeleteAccountRequest{}, &wire.DeleteAccountRequest{}, &wire.ExportAccountRequest{}} {
		requests[r.Method()] = r
	}
	seen := 0
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 3 {
			continue
		}
		tokens, err := strconv.ParseFloat(strings.TrimSpace(cells[1]), 64)
		if err != nil {
			continue
		}
		for _, m := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(cells[0], -1) {
			r, ok := requests[m[1]]
			if !ok {
				t.Errorf("%s is not one of the requests whose cost is known", m[1])
				continue
			}
			seen++
			want := cost{requests: tokens, deferred: m[1] == "enqueue"}
			if strings.Contains(cells[2], "1 of logins") {
				want.logins = 1
			}
			if strings.Contains(cells[2], "1 of lookups") {
				want.lookups = 1
			}
			if got := costOf(r); got != want {
				t.Errorf("%s: the document says %+v, the code %+v", m[1], want, got)
			}
		}
		if strings.HasPrefix(strings.TrimSpace(line), "| any other") {
			break
		}
	}
	if seen != len(requests) {
		t.Errorf("%d of %d requests are in the table", seen, len(requests))
	}
}
