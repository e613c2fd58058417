package authz

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// methods are the calls of the protocol, by the schema.
func methods(t *testing.T) []string {
	t.Helper()
	var list []string
	for which := schema.Request_Which_none + 1; ; which++ {
		name := which.String()
		if name == "" || strings.Contains(name, "(") {
			break
		}
		list = append(list, name)
	}
	if len(list) < 53 {
		t.Fatalf("the schema has %d calls: %q", len(list), list)
	}
	return list
}

func TestEveryCallIsAnAction(t *testing.T) {
	t.Parallel()
	want := methods(t)
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(byMethod)); !slices.Equal(got, want) {
		t.Errorf("actions are of\n%q\nthe calls are\n%q", got, want)
	}
	for method, action := range byMethod {
		if action == Unknown || action >= actions {
			t.Errorf("%s is %s", method, action)
		}
		if got, want := action.IsAdmin(), strings.HasPrefix(method, "admin"); got != want {
			t.Errorf("%s is an admin's action: %v", method, got)
		}
	}
	if a := ActionOf(&wire.EnqueueRequest{}); a != Send {
		t.Errorf("enqueue is %s", a)
	}
}

// verdicts is the whole table once more, as a person reads it: x may.
const verdicts = `
                stranger member channelAdmin moderator cellAdmin auditor
Unknown            .       .        .           .         .        .
Greet              x       x        x           x         x        x
Enter              x       x        x           x         .        .
ChangeAccount      x       x        x           x         .        .
ReadAccounts       .       x        x           x         .        .
ManageDevices      .       x        x           x         .        .
ReadOwnData        .       x        x           x         .        .
ManageKeys         .       x        x           x         .        .
ClaimKeys          .       x        x           x         .        .
ManageContacts     .       x        x           x         .        .
OpenChannel        .       x        x           x         .        .
ReadChannels       .       x        x           x         .        .
ManageChannel      .       x        x           x         .        .
Send               .       x        x           x         .        .
Receive            .       x        x           x         .        .
ChangeChannel      .       .        x           .         .        .
RemoveMember       .       .        x           x         .        .
EnterAsAdmin       x       .        .           .         x        x
InviteAccounts     .       .        .           .         x        .
ResetAccounts      .       .        .           .         x        .
InspectAccount     .       .        .           .         x        x
DisableAccount     .       .        .           .         x        .
RevokeDevice       .       .        .           .         x        .
EndSessions        .       .        .           .         x        .
DeleteAccount      .       .        .           .         x        .
ExportAudit        .       .        .           .         x        x
`

func TestEveryRoleAndAction(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.TrimSpace(verdicts), "\n")
	if len(lines)-1 != int(actions) || len(actionNames) != int(actions) || !slices.Equal(strings.Fields(lines[0]), roleNames[:]) {
		t.Fatalf("%d lines for %d actions, roles %q", len(lines)-1, actions, lines[0])
	}
	for i, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) != 1+int(roles) {
			t.Fatalf("%q", line)
		}
		for r, mark := range fields[1:] {
			role, action := Role(r), Action(i) //nolint:gosec // few.
			err := Table{}.Authorize(t.Context(), Subject{Role: role}, action, Object{})
			if (mark == "x") != (err == nil) {
				t.Errorf("%s, %s: %v", fields[0], role, err)
			}
			var denied *DeniedError
			if err != nil && (!errors.As(err, &denied) || denied.Role != role || denied.Action != action || !strings.Contains(err.Error(), role.String())) {
				t.Errorf("%s, %s: %v", fields[0], role, err)
			}
		}
	}
}

func TestWhatThereIsNotIsDenied(t *testing.T) {
	t.Parallel()
	for _, s := range []Subject{{Role: roles}, {Role: 255}} {
		if (Table{}).Authorize(t.Context(), s, Greet, Object{}) == nil {
			t.Errorf("%s may greet", s.Role)
		}
	}
	for _, a := range []Action{Unknown, actions, 255} {
		if (Table{}).Authorize(t.Context(), Subject{Role: CellAdmin}, a, Object{}) == nil || a.IsAdmin() {
			t.Errorf("%s", a)
		}
	}
}

// Nobody who is an account may do what admins may, and the other way round.
func TestAdminsAreNoMembers(t *testing.T) {
	t.Parallel()
	for a := range actions {
		who := allowed[a]
		if who&members != 0 && who&admins != 0 && a != Greet {
			t.Errorf("%s is for both", a)
		}
		if a.IsAdmin() && who&^(admins|1<<Stranger) != 0 || a.IsAdmin() && a != EnterAsAdmin && who&(1<<Stranger) != 0 {
			t.Errorf("%s is for others than admins", a)
		}
	}
}

func TestRolesInAChannel(t *testing.T) {
	t.Parallel()
	for role, want := range map[wire.ChannelRole][2]bool{0: {}, wire.RoleMember: {}, wire.RoleModerator: {false, true}, wire.RoleAdmin: {true, true}, 9: {}} {
		if got := [2]bool{AllowedIn(role, ChangeChannel), AllowedIn(role, RemoveMember)}; got != want {
			t.Errorf("role %d: %v", role, got)
		}
		if AllowedIn(role, Unknown) || AllowedIn(role, actions) || AllowedIn(role, ExportAudit) {
			t.Errorf("role %d may do anything", role)
		}
	}
}

func TestObjects(t *testing.T) {
	t.Parallel()
	a, d := ids.New(), ids.New()
	for _, x := range []struct {
		request wire.Request
		want    Object
	}{
		{&wire.HelloRequest{}, Object{}}, {&wire.AckRequest{}, Object{}},
		{&wire.GetAccountRequest{AccountID: a}, Object{Account: a}}, {&wire.ClaimKeyPackagesRequest{AccountID: a}, Object{Account: a}},
		{&wire.OpenDMRequest{AccountID: a}, Object{Account: a}}, {&wire.CreateGroupRequest{ChannelID: a}, Object{Channel: a}},
		{&wire.VoteGenerationRequest{ChannelID: a}, Object{Channel: a}}, {&wire.GetChannelRequest{ChannelID: a}, Object{Channel: a}},
		{&wire.GetGroupInfoRequest{ChannelID: a}, Object{Channel: a}}, {&wire.SetRoleRequest{ChannelID: a, AccountID: d}, Object{Channel: a, Account: d}},
		{&wire.SetRetentionRequest{ChannelID: a}, Object{Channel: a}}, {&wire.CommitRequest{ChannelID: a}, Object{Channel: a}}, {&wire.ProposeRequest{ChannelID: a}, Object{Channel: a}},
		{&wire.AcceptContactRequest{AccountID: a}, Object{Account: a}}, {&wire.BlockAccountRequest{AccountID: a}, Object{Account: a}},
		{&wire.EnqueueRequest{ChannelID: a}, Object{Channel: a}}, {&wire.RenameDeviceRequest{DeviceID: d}, Object{Device: d}},
		{&wire.RevokeDeviceRequest{DeviceID: d}, Object{Device: d}}, {&wire.AdminGetAccountRequest{AccountID: a}, Object{Account: a}},
		{&wire.AdminSetDisabledRequest{AccountID: a}, Object{Account: a}}, {&wire.AdminEndSessionsRequest{AccountID: a}, Object{Account: a}},
		{&wire.AdminRevokeDeviceRequest{AccountID: a, DeviceID: d}, Object{Account: a, Device: d}}, {&wire.AdminDeleteAccountRequest{AccountID: a}, Object{Account: a}},
	} {
		if got := ObjectOf(x.request); got != x.want {
			t.Errorf("%s: %+v", x.request.Method(), got)
		}
	}
}
