package audit

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"quicproquo.dev/schema/ids"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// marked are values that must show nowhere in what is stored. Each is a pattern that chance does not make.
var marked = struct {
	account, target, device, session, channel ids.ID
	admin                                     string
	address                                   netip.Addr
}{
	id("ACCOUNT-MARK-ACC"), id("TARGET-MARK-TARG"), id("DEVICE-MARK-DEVI"), id("SESSION-MARK-SES"), id("CHANNEL-MARK-CHA"),
	"cn=Marked Admin", netip.MustParseAddr("203.0.113.77"),
}

func id(s string) ids.ID { return ids.ID([]byte(s)) }

// everyEvent has a call of every constructor.
func everyEvent() map[string]Event {
	m, until := marked, time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	admin := ByAdmin(m.admin)
	return map[string]Event{
		"AccountCreated":          AccountCreated(m.account, m.device, m.session, ReasonByInvite),
		"SignupRefused":           SignupRefused(ReasonNameTaken),
		"AccountDeleted":          AccountDeleted(ByAccount(m.account), m.account, 3),
		"AccountExported":         AccountExported(ByAccount(m.account), m.account),
		"AccountDisabled":         AccountDisabled(admin, m.account),
		"AccountEnabled":          AccountEnabled(admin, m.account),
		"PasswordChanged":         PasswordChanged(m.account, m.device, ReasonNone),
		"PasswordChangeFailed":    PasswordChangeFailed(m.account, m.device, ReasonWrongPassword),
		"RecoveryCodesSet":        RecoveryCodesSet(m.account, m.device, 10),
		"Recovered":               Recovered(m.account),
		"RecoveryFailed":          RecoveryFailed(m.account, ReasonWrongPassword),
		"RootKeyReset":            RootKeyReset(m.account, m.device, ReasonByRecoveryCode),
		"OPAQUERenewed":           OPAQUERenewed(m.account),
		"LoginSucceeded":          LoginSucceeded(m.account),
		"LoginFailed":             LoginFailed(m.account, ReasonWrongPassword),
		"LoginDenied":             LoginDenied(m.account, ReasonLockedOut),
		"LoginAbandoned":          LoginAbandoned(m.account),
		"LockoutBegan":            LockoutBegan(m.account, 10, until),
		"SessionStarted":          SessionStarted(m.account, m.device, m.session),
		"SessionRefused":          SessionRefused(m.account, m.device, ReasonForeignCertificate),
		"SessionRefreshed":        SessionRefreshed(m.account, m.device, m.session),
		"RefreshRefused":          RefreshRefused(m.account, m.device, ReasonInvalidProof),
		"SessionRevoked":          SessionRevoked(ByCell(), m.account, m.device, m.session, ReasonReusedToken),
		"SessionEnded":            SessionEnded(m.account, m.device, m.session, ReasonLogout),
		"ConnectionAuthenticated": ConnectionAuthenticated(m.account, m.device, m.session),
		"TokenRefused":            TokenRefused(m.account, m.device, ReasonInvalidProof),
		"DeviceAdded":             DeviceAdded(m.account, m.device, ReasonByPassword),
		"DeviceRefused":           DeviceRefused(m.account, m.device, ReasonTooMany),
		"DeviceRenamed":           DeviceRenamed(m.account, m.device),
		"DeviceRevoked":           DeviceRevoked(admin, m.account, m.device, ReasonByAdmin),
		"PackagesUploaded":        PackagesUploaded(m.account, m.device, 20, true),
		"PackagesRefused":         PackagesRefused(m.account, m.device, ReasonReusedPackage),
		"PackagesClaimed":         PackagesClaimed(m.account, m.device, m.target, 2, 1),
		"ClaimRefused":            ClaimRefused(m.account, m.device, m.target, ReasonNoPackage),
		"ServerKeyRotated":        ServerKeyRotated(KeySetTokens, 2),
		"DirectOpened":            DirectOpened(m.account, m.device, m.target, m.channel),
		"GroupOpened":             GroupOpened(m.account, m.device, m.channel),
		"GenerationVoted":         GenerationVoted(m.account, m.device, m.channel, 2),
		"GroupCreated":            GroupCreated(m.account, m.device, m.channel, 2, 5),
		"GroupRefused":            GroupRefused(m.account, m.device, m.channel, 2, ReasonConflict),
		"MemberAdded":             MemberAdded(ByAccount(m.account), m.target, m.channel),
		"MemberRemoved":           MemberRemoved(ByAccount(m.account), m.target, m.channel, ReasonNone),
		"RoleChanged":             RoleChanged(ByAccount(m.account), m.target, m.channel, RoleChannelAdmin),
		"ChannelRetentionChanged": ChannelRetentionChanged(ByAccount(m.account), m.channel, time.Hour),
		"ChannelDenied":           ChannelDenied(m.account, m.device, m.channel, ReasonNotMember),
		"AccountBlocked":          AccountBlocked(m.account, m.device, m.target),
		"AccountUnblocked":        AccountUnblocked(m.account, m.device, m.target),
		"AdminAuthenticated":      AdminAuthenticated(admin),
		"AdminRefused":            AdminRefused(ReasonInvalidToken),
		"AdminDenied":             AdminDenied(admin, m.account, ReasonNotAuthorized),
		"InviteMinted":            InviteMinted(admin, 5, until),
		"InviteUsed":              InviteUsed(m.account),
		"InviteRefused":           InviteRefused(ReasonInvalidInvite),
		"InviteRevoked":           InviteRevoked(admin, 2),
		"PolicyReplaced":          PolicyReplaced([8]byte{1, 2, 3}),
		"AuditExported":           AuditExported(admin, 7),
		"AuditPruned":             AuditPruned(ByOperator(), 7),
		"SubjectResolved":         SubjectResolved(ByOperator(), m.account),
		"LimitReached":            LimitReached(m.account, ReasonRateLimited),
		"ResetCodeMinted":         ResetCodeMinted(admin, m.account, until),
		"ChainStarted":            ChainStarted(1),
		"ChainEnded":              ChainEnded(),
		"ChainLost":               ChainLost(1, 9),
		"LogRolledBack":           LogRolledBack(9, 8),
		"FaultFound":              FaultFound(4),
		"EventsSuppressed":        EventsSuppressed(3),
	}
}

// keyring is a Resolver with the marked accounts' keys.
type keyring struct {
	*Keys
	subjects map[ids.ID]*SubjectKey
	address  *AddressKey
}

func (k *keyring) Subject(a ids.ID) (*SubjectKey, error) { return k.subjects[a], nil }
func (k *keyring) Address(_ int64) (*AddressKey, error)  { return k.address, nil }
func newKeyring() *keyring {
	// Always the same, since a fuzz target's seeds come from another process than what they are compared with.
	return &keyring{testKeys(1), map[ids.ID]*SubjectKey{marked.account: {1}, marked.target: {2}}, &AddressKey{3}}
}

func testKeys(seeds ...byte) *Keys {
	var all [][]byte
	for _, b := range seeds {
		all = append(all, bytes.Repeat([]byte{b}, 32))
	}
	k, err := NewKeys(all...)
	if err != nil {
		panic(err)
	}
	return k
}

// constructors parses make.go and returns its exported functions.
func constructors(t *testing.T) map[string]*ast.FuncDecl {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "make.go", nil, 0)
	must(t, err)
	found := map[string]*ast.FuncDecl{}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Name.IsExported() {
			found[f.Name.Name] = f
		}
	}
	return found
}

// No constructor takes what could hold a text, a secret or content, but for ByAdmin's name, which is hashed.
func TestConstructorsTakeNoText(t *testing.T) {
	t.Parallel()
	allowed := []string{"ids.ID", "By", "Reason", "Role", "KeySet", "int", "uint32", "uint64", "bool", "time.Time", "time.Duration", "[8]byte"}
	for name, f := range constructors(t) {
		for _, p := range f.Type.Params.List {
			var kind string
			switch x := p.Type.(type) {
			case *ast.Ident:
				kind = x.Name
			case *ast.SelectorExpr:
				kind = fmt.Sprintf("%s.%s", x.X, x.Sel)
			case *ast.ArrayType:
				kind = fmt.Sprintf("[%s]%s", x.Len.(*ast.BasicLit).Value, x.Elt)
			}
			if !slices.Contains(allowed, kind) {
				t.Errorf("%s takes a %q", name, kind)
			}
		}
	}
}

func TestEveryEventIsPseudonymous(t *testing.T) {
	t.Parallel()
	events := everyEvent()
	made := constructors(t)
	for name := range made {
		if _, ok := events[name]; !ok {
			t.Errorf("%s is not tried", name)
		}
	}
	keys := newKeyring()
	kinds := map[Kind]bool{}
	for name, e := range events {
		kinds[e.Kind()] = true
		e = e.From(WithAddress(t.Context(), marked.address))
		r, err := e.Record(time.Now(), keys)
		must(t, err)
		b, err := r.Encode()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		row := keys.Next(id("cell............"), id("writer.........."), Head{}, b)
		line := fmt.Sprintf("%+v", newEventLine(&row))
		wantUnmarked(t, name, append(b, line...))
		again, err := DecodeRecord(b)
		if err != nil || again.Kind != e.Kind() || again.Address == (AddressRef{}) {
			t.Errorf("%s: %+v, %v", name, again, err)
		}
		if strings.Contains(line, "kind-") || strings.Contains(line, "reason-") || strings.Contains(line, "actor-") || strings.Contains(line, "field-") {
			t.Errorf("%s has no name: %s", name, line)
		}
	}
	for k := range kindNames {
		if !kinds[k] {
			t.Errorf("nothing makes %s", k)
		}
	}
}

// wantUnmarked looks for the marked values as they are, in hex and in base64's and decimal disguise.
func wantUnmarked(t *testing.T, name string, b []byte) {
	t.Helper()
	a4 := marked.address.As4()
	for what, secret := range map[string][]byte{"account": marked.account[:], "target": marked.target[:], "device": marked.device[:], "session": marked.session[:],
		"channel": marked.channel[:], "admin": []byte(marked.admin), "address": []byte(marked.address.String()), "address bytes": a4[:]} {
		for _, form := range [][]byte{secret, []byte(hex.EncodeToString(secret)), []byte(strings.Trim(fmt.Sprintf("%d", secret), "[]"))} {
			if bytes.Contains(bytes.ToLower(b), bytes.ToLower(form)) {
				t.Errorf("%s holds the %s: %q", name, what, b)
			}
		}
	}
}

func TestPseudonymsAreTheAccountsOwn(t *testing.T) {
	t.Parallel()
	keys := newKeyring()
	record := func(e Event) *Record {
		r, err := e.Record(time.Now(), keys)
		must(t, err)
		return r
	}
	mine, theirs := keys.subjects[marked.account], keys.subjects[marked.target]
	r := record(DirectOpened(marked.account, marked.device, marked.target, marked.channel))
	if r.By != mine.Account() || r.Subject != theirs.Account() || r.Device != mine.Device(marked.device) || r.Channel != mine.Channel(marked.channel) {
		t.Errorf("%+v", r)
	}
	if mine.Channel(marked.channel) == theirs.Channel(marked.channel) || mine.Channel(marked.channel) == mine.Device(marked.channel) {
		t.Error("two accounts, or two kinds of thing, have one pseudonym")
	}
	r = record(DeviceRevoked(ByAdmin(marked.admin), marked.account, marked.device, ReasonByAdmin))
	if r.By != keys.Admin(marked.admin) || r.Actor != ActorAdmin || r.Device != mine.Device(marked.device) {
		t.Errorf("%+v", r)
	}
	delete(keys.subjects, marked.account) // Deleted: what is said of it names nobody.
	r = record(SessionStarted(marked.account, marked.device, marked.session))
	if !r.Subject.IsZero() || !r.By.IsZero() || !r.Device.IsZero() || !r.Session.IsZero() {
		t.Errorf("%+v", r)
	}
}

func TestAddressesAreHashedForAWhile(t *testing.T) {
	t.Parallel()
	k, later := NewAddressKey(), NewAddressKey()
	addr := netip.MustParseAddr
	for _, x := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"2001:db8::1", "2001:db8::2", true}, // One /64.
		{"2001:db8::1%eth0", "2001:db8::1", true},
		{"2001:db8:0:1::1", "2001:db8::1", false},
	} {
		if got := k.Ref(addr(x.a)) == k.Ref(addr(x.b)); got != x.same {
			t.Errorf("%s and %s: %v", x.a, x.b, got)
		}
	}
	if k.Ref(addr("192.0.2.1")) == later.Ref(addr("192.0.2.1")) {
		t.Error("two periods hash alike")
	}
	at := time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)
	if PeriodOf(at.Add(AddressPeriod)) != PeriodOf(at)+1 {
		t.Error("a period is not as long as it says")
	}
}

func drawRecord(t *rapid.T) *Record {
	ref := func(l string) Ref {
		if rapid.Bool().Draw(t, l+"?") {
			return Ref(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, l))
		}
		return Ref{}
	}
	r := &Record{At: time.UnixMicro(rapid.Int64Range(-1<<50, 1<<52).Draw(t, "at")).UTC(), Kind: Kind(rapid.Uint16Min(1).Draw(t, "kind")),
		Outcome: Outcome(rapid.Uint8Min(1).Draw(t, "outcome")), Reason: Reason(rapid.Uint16().Draw(t, "reason")), Actor: ActorKind(rapid.Uint8Min(1).Draw(t, "actor")),
		Subject: ref("subject"), By: ref("by"), Device: ref("device"), Session: ref("session"), Channel: ref("channel")}
	address := ref("address")
	copy(r.Address[:], address[:])
	fields := rapid.SliceOfNDistinct(rapid.Uint8Min(1), 0, maxDetails, rapid.ID[uint8]).Draw(t, "fields")
	slices.Sort(fields)
	for _, f := range fields {
		r.Details = append(r.Details, Detail{Field(f), rapid.Uint64().Draw(t, "value")})
	}
	return r
}

func TestRecordsHaveOneEncoding(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := drawRecord(t)
		b, err := r.Encode()
		if err != nil || len(b) > MaxBody {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		again, err := DecodeRecord(b)
		if err != nil || fmt.Sprint(again) != fmt.Sprint(r) {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
		for _, bad := range [][]byte{b[:len(b)-1], append(slices.Clone(b), 0), nil} {
			if _, err := DecodeRecord(bad); err == nil {
				t.Fatalf("%x is taken", bad)
			}
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	for _, e := range everyEvent() {
		r, err := e.Record(time.UnixMicro(1), newKeyring())
		must(f, err)
		b, err := r.Encode()
		must(f, err)
		f.Add(b)
	}
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRecord(b)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x is taken, but encoded as %x, %v", b, again, err)
		}
	})
}

func FuzzDecodeCheckpoint(f *testing.F) {
	c := Checkpoint{Cell: id("cell............"), Number: 3, At: time.UnixMicro(5), Moves: []Move{{Writer: id("writer.........."), To: Head{Seq: 2}}}}
	f.Add(c.Encode())
	p := Pruned{Cell: c.Cell, Checkpoint: 2, At: time.UnixMicro(5), Heads: []WriterHead{{c.Moves[0].Writer, Head{Seq: 2}}}}
	f.Add(p.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := DecodeCheckpoint(b); err == nil && !bytes.Equal(c.Encode(), b) {
			t.Errorf("%x is taken, but encoded as %x", b, c.Encode())
		}
		if p, err := DecodePruned(b); err == nil && !bytes.Equal(p.Encode(), b) {
			t.Errorf("%x is taken, but encoded as %x", b, p.Encode())
		}
	})
}
