package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"capnproto.org/go/capnp/v3"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/frame"
)

func typeString(v any) string { return reflect.TypeOf(v).String() }

// build makes a frame whose envelope fill may write as it likes.
func build(t testing.TB, fill func(schema.Envelope) error) []byte {
	t.Helper()
	b, err := frame.Build(1024, func(seg *capnp.Segment) error {
		env, err := schema.NewRootEnvelope(seg)
		if err != nil {
			return err
		}
		env.SetVersion(schema.Version)
		env.SetCorrelationId(77)
		return fill(env)
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// poked returns a sample's frame with one 16-bit word of its body replaced.
func poked(t *testing.T, e Envelope, at int, value uint16) []byte {
	t.Helper()
	b := mustMarshal(t, e)
	binary.LittleEndian.PutUint16(b[at:], value)
	return b
}

// Where an envelope's own fields lie in a frame of one segment: table, root pointer, then the struct.
const (
	versionAt       = 16
	kindAt          = 18
	correlationIDAt = 24
)

func TestTheEnvelopeKeepsItsPlaces(t *testing.T) {
	t.Parallel()
	b := mustMarshal(t, Envelope{CorrelationID: 0x0807060504030201, Body: &KeyPackageStatusRequest{}})
	if got := binary.LittleEndian.Uint16(b[versionAt:]); got != schema.Version {
		t.Errorf("version: %d", got)
	}
	if got := binary.LittleEndian.Uint64(b[correlationIDAt:]); got != 0x0807060504030201 {
		t.Errorf("correlation id: %#x", got)
	}
}

func TestUnknown(t *testing.T) {
	t.Parallel()
	enqueue := Envelope{CorrelationID: 77, Body: sampleOf[EnqueueRequest](t)}
	member := func(n uint16, kind schema.Envelope_Which) []byte {
		return build(t, func(env schema.Envelope) error {
			capnp.Struct(env).SetUint16(2, uint16(kind))
			s, err := capnp.NewStruct(env.Segment(), capnp.ObjectSize{DataSize: 8, PointerCount: 1})
			if err != nil {
				return err
			}
			s.SetUint16(0, n)
			return capnp.Struct(env).SetPtr(0, s.ToPtr())
		})
	}
	cases := []struct {
		name  string
		frame []byte
		code  Code
	}{
		{"version 0", poked(t, enqueue, versionAt, 0), CodeUnsupportedVersion},
		{"version 2", poked(t, enqueue, versionAt, 2), CodeUnsupportedVersion},
		{"version 65535 of another kind", poked(t, Envelope{CorrelationID: 77, Body: &Done{}}, versionAt, 65535), CodeUnsupportedVersion},
		{"an envelope without a body", build(t, func(schema.Envelope) error { return nil }), CodeMalformed},
		{"a kind of envelope to come", poked(t, enqueue, kindAt, 5), CodeUnknownMethod},
		{"a request without a body", build(t, func(env schema.Envelope) error { _, err := env.NewRequest(); return err }), CodeUnknownMethod},
		{"a request to come", member(60000, schema.Envelope_Which_request), CodeUnknownMethod},
		{"the last request there can be", member(65535, schema.Envelope_Which_request), CodeUnknownMethod},
		{"a response to come", member(60000, schema.Envelope_Which_response), CodeUnknownMethod},
		{"a push to come", member(60000, schema.Envelope_Which_push), CodeUnknownMethod},
		{"a request whose pointer is null", build(t, func(env schema.Envelope) error {
			capnp.Struct(env).SetUint16(2, uint16(schema.Envelope_Which_request))
			return nil
		}), CodeUnknownMethod},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := Unmarshal(c.frame)
			detail := ""
			if c.code == CodeUnsupportedVersion {
				detail = fmt.Sprint(schema.Version)
			}
			checkError(t, err, c.code, "supported", detail)
			if got.CorrelationID != 77 {
				t.Errorf("the correlation id is %d, want 77", got.CorrelationID)
			}
		})
	}
}

// A body whose fields are absent, or of another type than the schema's, is an error and nothing worse.
func TestWrongTypes(t *testing.T) {
	t.Parallel()
	for which := range schema.Request_Which(1000) {
		if strings.Contains(which.String(), "Which(") || which == schema.Request_Which_none ||
			which == schema.Request_Which_keyPackageStatus || which == schema.Request_Which_endSession || which == schema.Request_Which_listDevices {
			continue
		}
		for name, size := range map[string]capnp.ObjectSize{"empty": {}, "lists": {DataSize: 8, PointerCount: 8}} {
			b := build(t, func(env schema.Envelope) error {
				q, err := env.NewRequest()
				if err != nil {
					return err
				}
				capnp.Struct(q).SetUint16(0, uint16(which))
				return wrongBody(capnp.Struct(q), size)
			})
			_, err := Unmarshal(b)
			allowed := map[schema.Request_Which]bool{ // Calls whose every field may be absent.
				schema.Request_Which_hello: true, schema.Request_Which_subscribe: true,
				schema.Request_Which_uploadKeyPackages: size.PointerCount == 0, schema.Request_Which_ack: size.PointerCount == 0,
				schema.Request_Which_setRecoveryCodes: size.PointerCount == 0, schema.Request_Which_exportAccount: true,
				schema.Request_Which_adminExportAudit: true, schema.Request_Which_adminAuthenticate: true,
				schema.Request_Which_listChannels: true, schema.Request_Which_listContacts: true,
			}
			if err == nil && allowed[which] {
				continue
			}
			if code := CodeOf(err); err == nil || code != CodeInvalidArgument && code != CodeMalformed {
				t.Errorf("%v with %s fields: %v", which, name, err)
			}
		}
	}
}

// wrongBody sets a union's body to a struct whose pointers are lists of 32-bit numbers.
func wrongBody(union capnp.Struct, size capnp.ObjectSize) error {
	body, err := capnp.NewStruct(union.Segment(), size)
	if err != nil {
		return err
	}
	for i := range size.PointerCount {
		list, err := capnp.NewUInt32List(union.Segment(), 4)
		if err != nil {
			return err
		}
		if err := body.SetPtr(i, list.ToPtr()); err != nil {
			return err
		}
	}
	return union.SetPtr(0, body.ToPtr())
}

// check fails unless a frame is either refused with an *Error or read as something that can be sent on unchanged.
func check(t *testing.T, b []byte) {
	t.Helper()
	got, err := Unmarshal(b)
	if err != nil {
		var e *Error
		if !errors.As(err, &e) || e.Message == "" || got.Body != nil {
			t.Fatalf("%v with body %v: want an *Error and no body\n%x", err, got.Body, b)
		}
		return
	}
	again := mustMarshal(t, got)
	reread, err := Unmarshal(again)
	if err != nil {
		t.Fatalf("%+v was read, written and refused: %v", got.Body, err)
	}
	if a, b := show(got), show(reread); a != b {
		t.Fatalf("read %s, written and read again %s", a, b)
	}
	if !bytes.Equal(mustMarshal(t, reread), again) {
		t.Fatalf("%+v is not written the same way twice", got.Body)
	}
}

// show prints an envelope by its values; an empty list and none are the same on the wire, and look the same.
func show(e Envelope) string {
	return fmt.Sprintf("%d %T %+v", e.CorrelationID, e.Body, reflect.ValueOf(e.Body).Elem())
}

func TestEveryByteChanged(t *testing.T) {
	t.Parallel()
	for _, s := range append(samples(), variants()...) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			good := mustMarshal(t, s.env)
			for i := range good {
				if i >= 16 && good[i] != 0 && bytes.Count(good[i-16:i+1], good[i:i+1]) == 17 {
					continue // Inside a sample's filler, which says the same at every place.
				}
				for _, mask := range []byte{0x01, 0x04, 0x80, 0xff} {
					bad := bytes.Clone(good)
					bad[i] ^= mask
					check(t, bad)
				}
			}
		})
	}
}

func TestTruncated(t *testing.T) {
	t.Parallel()
	for _, s := range samples() {
		whole := mustMarshal(t, s.env)
		for n := range whole {
			if _, err := Unmarshal(whole[:n]); CodeOf(err) != CodeMalformed {
				t.Fatalf("%s: %d of %d bytes: %v, want %v", s.name, n, len(whole), err, CodeMalformed)
			}
		}
		for n := 8; n < len(whole); n += 8 { // The table says what is there, the pointers do not.
			short := bytes.Clone(whole[:n])
			binary.LittleEndian.PutUint32(short[4:], uint32(n/8-1))
			check(t, short)
		}
		if _, err := Unmarshal(append(whole, make([]byte, 8)...)); CodeOf(err) != CodeMalformed {
			t.Errorf("%s: with bytes after it: %v, want %v", s.name, err, CodeMalformed)
		}
	}
}

// scattered copies an envelope into a message of 16 small segments, so that its pointers are far.
func scattered(t testing.TB, b []byte) []byte {
	t.Helper()
	sizes := []int{8, 32, 16, 64, 24, 8, 40, 200, 200, 80, 360, 420, 24, 456, 600, 1400}
	segments := make([][]byte, len(sizes))
	for i, n := range sizes {
		segments[i] = make([]byte, 0, n)
	}
	from, err := frame.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	root, err := from.Root()
	if err != nil {
		t.Fatal(err)
	}
	msg, _, err := capnp.NewMessage(capnp.MultiSegment(segments))
	if err != nil {
		t.Fatal(err)
	}
	if err := msg.SetRoot(root); err != nil {
		t.Fatal(err)
	}
	out, err := msg.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestMessagesOfSeveralSegments(t *testing.T) {
	t.Parallel()
	for _, s := range append(samples(), variants()...) {
		b := scattered(t, mustMarshal(t, s.env))
		if n := binary.LittleEndian.Uint32(b) + 1; n != frame.MaxSegments {
			t.Fatalf("%s: %d segments", s.name, n)
		}
		got, err := Unmarshal(b)
		if err != nil || !reflect.DeepEqual(got, s.env) {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", s.name, err, got.Body, s.env.Body)
		}
	}
}

func TestTooManySegments(t *testing.T) {
	t.Parallel()
	whole := mustMarshal(t, Envelope{CorrelationID: 1, Body: &Done{}})
	table := binary.LittleEndian.AppendUint32(nil, frame.MaxSegments)
	table = binary.LittleEndian.AppendUint32(table, uint32(len(whole)/8-1))
	table = append(table, make([]byte, 4*frame.MaxSegments)...) // Sixteen empty ones, and no padding.
	_, err := Unmarshal(append(table, whole[8:]...))
	checkError(t, err, CodeMalformed, "", "")
	if err == nil || !strings.Contains(err.Error(), "17 segments") {
		t.Errorf("%v does not name the number of segments", err)
	}
}

// ptr encodes a struct pointer (kind 0) or, with a list's size class, a list pointer.
func structPtr(offset int32, data, pointers uint16) uint64 {
	return uint64(uint32(offset)<<2) | uint64(data)<<32 | uint64(pointers)<<48
}

func listPtr(offset int32, class uint8, n uint32) uint64 {
	return 1 | uint64(uint32(offset)<<2) | uint64(class)<<32 | uint64(n)<<35
}

func frameOf(words ...uint64) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(words))<<32)
	for _, w := range words {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// Messages that would cost much more than they weigh.
func TestBombs(t *testing.T) {
	t.Parallel()
	const envelopeHead = 1 | 1<<16 // Version 1, a request.
	welcomes := func(entries uint32) []uint64 {
		// An envelope with a createGroup whose welcomes all point to the same 4 KiB.
		words := []uint64{structPtr(0, 2, 1), envelopeHead, 77, structPtr(0, 1, 1),
			uint64(schema.Request_Which_createGroup), structPtr(0, 1, 3),
			1, listPtr(2, 2, 16), listPtr(3, 2, 16), listPtr(4, 7, entries*2),
			0x0101010101010101, 0x0101010101010101, 0x0202020202020202, 0x0202020202020202,
			structPtr(int32(entries), 0, 2)}
		start := len(words)
		end := start + int(entries)*2
		for i := range int(entries) {
			at := start + 2*i
			words = append(words, listPtr(int32(10-(at+1)), 2, 16), listPtr(int32(end-(at+2)), 2, 4096))
		}
		return append(words, make([]uint64, 512)...)
	}
	itself := []uint64{structPtr(0, 2, 1), envelopeHead, 77, structPtr(-3, 2, 1)}
	list := func(pointer uint64) []uint64 { // An ack of a list that is no list of structs.
		return []uint64{structPtr(0, 2, 1), envelopeHead, 77, structPtr(0, 1, 1), uint64(schema.Request_Which_ack), structPtr(0, 0, 1), pointer}
	}
	cases := map[string][]uint64{
		"a thousand welcomes in one place": welcomes(1000),
		"half a billion of nothing":        list(listPtr(0, 0, 1<<29-1)),
		"half a billion empty structs":     append(list(listPtr(0, 7, 0)), structPtr(1<<29-1, 0, 0)),
		"a negative number of structs":     append(list(listPtr(0, 7, 0)), structPtr(-1, 0, 0)),
		"a list beyond the end":            list(listPtr(1<<28, 2, 16)),
		"a list before the start":          list(listPtr(-(1 << 28), 2, 16)),
		"a far pointer to nowhere":         list(2 | 99<<32),
		"a far pointer to itself":          list(2 | 6<<3),
	}
	for name, words := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Unmarshal(frameOf(words...))
			if code := CodeOf(err); err == nil || code != CodeMalformed && code != CodeInvalidArgument && code != CodeUnknownMethod {
				t.Errorf("%+v, %v", got.Body, err)
			}
			if got.CorrelationID != 77 {
				t.Errorf("the correlation id is %d, want 77", got.CorrelationID)
			}
		})
	}
	t.Run("loops and capabilities end", func(t *testing.T) { // They read as something else, or as nothing.
		t.Parallel()
		check(t, frameOf(itself...))
		check(t, frameOf(list(3)...))
	})
	t.Run("the shape of the bomb is not its fault", func(t *testing.T) {
		t.Parallel()
		got, err := Unmarshal(frameOf(welcomes(1)...))
		if err != nil || len(got.Body.(*CreateGroupRequest).Welcomes[0].Welcome) != 4096 {
			t.Errorf("one welcome in the same layout: %v", err)
		}
	})
}

func FuzzUnmarshal(f *testing.F) {
	for _, s := range append(samples(), variants()...) {
		b := mustMarshal(f, s.env)
		f.Add(b)
		f.Add(scattered(f, b))
	}
	f.Add([]byte{})
	f.Fuzz(check)
}
