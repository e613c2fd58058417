package wire

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/internal/idl"
)

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, s := range append(samples(), variants()...) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			got, err := Unmarshal(mustMarshal(t, s.env))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, s.env) {
				t.Errorf("got  %+v\nwant %+v", got.Body, s.env.Body)
			}
		})
	}
}

// zeroFields names the exported fields below v that are zero, empty lists included.
func zeroFields(path string, v reflect.Value) []string {
	switch {
	case v.Type() == reflect.TypeFor[time.Time](), v.Kind() == reflect.Array:
		// Leaves that have no fields to look at.
	case v.Kind() == reflect.Struct:
		var zero []string
		for i := range v.NumField() {
			zero = append(zero, zeroFields(path+"."+v.Type().Field(i).Name, v.Field(i))...)
		}
		return zero
	case v.Kind() == reflect.Slice && v.Len() > 0 && v.Type().Elem().Kind() != reflect.Uint8:
		var zero []string
		for i := range v.Len() {
			zero = append(zero, zeroFields(fmt.Sprintf("%s[%d]", path, i), v.Index(i))...)
		}
		return zero
	}
	if v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0 {
		return []string{path}
	}
	return nil
}

// A field that the encoder or the decoder forgets is zero after a round trip; samples fill all of them.
func TestNoFieldIsForgotten(t *testing.T) {
	t.Parallel()
	// What an older peer leaves out, and what is one or the other.
	either := map[string][]string{"request-get-account-by-name": {".AccountID"}, "request-get-account-by-id": {".Name"},
		"request-signup-start": {".Invitation"}, "request-signup-finish": {".Invitation", ".OpaqueKey", ".RecoveryCodes"},
		"request-login-start": {".DeviceID", ".Proof"}, "response-signup-start": {".OpaqueKey"}, "response-login-finish": {".SetPassword"},
		"response-channel": {".Kind", ".Epoch", ".Role", ".Retention", ".History", ".Contact"}, "response-channel-direct": {".Kind"},
		"response-channel-of-a-group": {".Peer.AccountID", ".Peer.Name", ".Peer.RootKey", ".Contact"},
		"push-deliver":                {".frame"}, // Of Encode, not of the wire.
		"response-channel-details":    {".Channel.Kind"}, "response-channel-list": {".Channels[0].Kind"}, "request-subscribe": {".Notices"}, "request-admin-get-account-by-name": {".AccountID"}, "request-admin-get-account-by-id": {".Name"}}
	for _, s := range samples() {
		got, err := Unmarshal(mustMarshal(t, s.env))
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		for _, field := range zeroFields("", reflect.ValueOf(got.Body).Elem()) {
			if !slices.Contains(either[s.name], field) {
				t.Errorf("%s: %s is zero after a round trip", s.name, field)
			}
		}
	}
}

// What was encoded once is the same frame as ever, and is returned as it is.
func TestAnEncodedDeliveryIsMarshaledOnce(t *testing.T) {
	t.Parallel()
	for _, s := range samples() {
		d, ok := s.env.Body.(*Delivery)
		if !ok {
			continue
		}
		want := mustMarshal(t, s.env)
		once := *d
		if err := once.Encode(); err != nil {
			t.Fatal(err)
		}
		first, second := mustMarshal(t, Envelope{Body: &once}), mustMarshal(t, Envelope{Body: &once})
		if !bytes.Equal(first, want) || &first[0] != &second[0] {
			t.Errorf("%s: another frame", s.name)
		}
	}
}

// goName is the Go field of a schema field: durations lose their unit, keywords their underscore.
func goName(field string) string {
	name := strings.TrimSuffix(strings.TrimSuffix(field, "Ms"), "Sec")
	return strings.ToLower(name)
}

// bodyTypes maps the structs of the schema to the Go types that carry them.
func bodyTypes() map[string]reflect.Type {
	types := map[string]reflect.Type{
		"Envelope": reflect.TypeFor[Envelope](), "Detail": reflect.TypeFor[Detail](), "DeviceWelcome": reflect.TypeFor[DeviceWelcome](),
		"ClaimedKeyPackage": reflect.TypeFor[ClaimedKeyPackage](), "Ack": reflect.TypeFor[Ack](), "RecoveryCode": reflect.TypeFor[RecoveryCode](), "Content": reflect.TypeFor[Content](),
		"Device": reflect.TypeFor[Device](), "ChannelMember": reflect.TypeFor[ChannelMember](), "Contact": reflect.TypeFor[Contact](), "DeviceNotice": reflect.TypeFor[Notice](), "AccountNotice": reflect.TypeFor[Notice](),
	}
	for _, s := range samples() {
		body := reflect.TypeOf(s.env.Body).Elem()
		types[body.Name()] = body
	}
	types["OpenDmRequest"] = types["OpenDMRequest"]
	return types
}

// Every field of every struct of the schema has its field in Go: one that was added to the schema alone fails here.
func TestEveryFieldOfTheSchemaIsCarried(t *testing.T) {
	t.Parallel()
	files, err := idl.ParseDir("..")
	if err != nil {
		t.Fatal(err)
	}
	types, seen := bodyTypes(), 0
	for _, d := range files {
		name := d.Name[strings.LastIndex(d.Name, ".")+1:]
		if d.Kind != "struct" || name == "Request" || name == "Response" || name == "Push" || name == "Notice" {
			continue // Unions of bodies: TestEveryMemberHasASample, TestNoticeRoundTrip.
		}
		body, ok := types[name]
		if !ok {
			t.Errorf("struct %s of the schema has no Go type here", d.Name)
			continue
		}
		for _, m := range d.Members {
			if name == "Envelope" && m.Name != "correlationId" || name == "Content" && m.Name != "sentAt" && m.Name != "text" {
				continue // The version and the union's members, which are the body.
			}
			seen++
			if _, ok := body.FieldByNameFunc(func(s string) bool { return strings.ToLower(s) == goName(m.Name) }); !ok {
				t.Errorf("%s.%s of the schema has no field in %v", d.Name, m.Name, body)
			}
		}
	}
	if seen < 190 {
		t.Errorf("only %d fields were looked at", seen)
	}
}

// members returns the names of a union's members beyond the invalid first one.
func members[W fmt.Stringer](which func(n uint16) W) map[string]bool {
	all := map[string]bool{}
	for n := range uint16(1000) {
		if name := which(n).String(); !strings.Contains(name, "Which(") && name != "none" {
			all[name] = true
		}
	}
	return all
}

func TestEveryMemberHasASample(t *testing.T) {
	t.Parallel()
	requests := members(func(n uint16) schema.Request_Which { return schema.Request_Which(n) })
	responses := members(func(n uint16) schema.Response_Which { return schema.Response_Which(n) })
	pushes := members(func(n uint16) schema.Push_Which { return schema.Push_Which(n) })
	if len(requests) < 53 || len(responses) < 27 || len(pushes) < 5 {
		t.Fatalf("%d requests, %d responses, %d pushes: the unions were not read", len(requests), len(responses), len(pushes))
	}
	for _, s := range samples() {
		msg, err := frame.Open(mustMarshal(t, s.env))
		if err != nil {
			t.Fatal(err)
		}
		env, err := schema.ReadRootEnvelope(msg)
		if err != nil {
			t.Fatal(err)
		}
		switch env.Which() {
		case schema.Envelope_Which_request:
			q, _ := env.Request()
			delete(requests, q.Which().String())
			if got := s.env.Body.(Request).Method(); got != q.Which().String() {
				t.Errorf("%s: Method is %q, the schema's name is %q", s.name, got, q.Which())
			}
		case schema.Envelope_Which_response:
			p, _ := env.Response()
			delete(responses, p.Which().String())
		case schema.Envelope_Which_push:
			p, _ := env.Push()
			delete(pushes, p.Which().String())
		}
	}
	for _, missing := range []map[string]bool{requests, responses, pushes} {
		for name := range missing {
			t.Errorf("%s has no sample", name)
		}
	}
}

func TestMarshalRefusesAnEnvelopeWithoutBody(t *testing.T) {
	t.Parallel()
	if b, err := Marshal(Envelope{CorrelationID: 1}); err == nil {
		t.Errorf("%x", b)
	}
}

func TestLargeBodiesRoundTrip(t *testing.T) {
	t.Parallel()
	acks := &AckRequest{}
	for i := range MaxAcks {
		acks.Acks = append(acks.Acks, Ack{ChannelID: dm, Seq: uint64(i)})
	}
	group := &CreateGroupRequest{ChannelID: dm, Generation: 1, GroupInfo: pattern(1, MaxGroupInfo)}
	for range MaxWelcomes {
		group.Welcomes = append(group.Welcomes, DeviceWelcome{DeviceID: bob, Welcome: pattern(2, 700)})
	}
	packages := &UploadKeyPackagesRequest{}
	for range MaxKeyPackages {
		packages.OneTime = append(packages.OneTime, pattern(3, MaxKeyPackage))
	}
	for _, body := range []Body{acks, group, packages, &EnqueueRequest{ChannelID: dm, DeliveryID: deliveryID, Payload: pattern(4, MaxPayload)}} {
		b := mustMarshal(t, Envelope{CorrelationID: 1, Body: body})
		got, err := Unmarshal(b)
		if err != nil || !reflect.DeepEqual(got.Body, body) {
			t.Errorf("%T of %d bytes: %v", body, len(b), err)
		}
		if len(b) > MaxFrame {
			t.Errorf("%T: a frame of %d bytes is above MaxFrame, %d", body, len(b), MaxFrame)
		}
	}
}
