package server_test

import (
	"bytes"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// capturedRequests are one request, at least, of each method.
func capturedRequests(t *testing.T) (list []wire.Request) {
	t.Helper()
	files, err := filepath.Glob("../../schema/testdata/golden/request-*.hex")
	must(t, err)
	methods := map[string]bool{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		must(t, err)
		var digits strings.Builder
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "#") {
				digits.WriteString(strings.Join(strings.Fields(line), ""))
			}
		}
		b, err := hex.DecodeString(digits.String())
		must(t, err)
		e, err := wire.Unmarshal(b)
		must(t, err)
		r := e.Body.(wire.Request)
		methods[r.Method()] = true
		list = append(list, r)
	}
	if len(methods) < 53 {
		t.Fatalf("%d methods were captured", len(methods))
	}
	return list
}

// absurd changes values of requests to such as no client means.
type absurd struct {
	*rand.Rand
	ids []ids.ID // That there are.
}

func pick[T any](a *absurd, list ...T) T { return list[a.IntN(len(list))] }

// change replaces some of the values that a request has.
func (a *absurd) change(v reflect.Value) {
	switch x := v.Addr().Interface().(type) {
	case *ids.ID:
		*x = pick(a, append([]ids.ID{{}, {15: 1}, ids.ID(bytes.Repeat([]byte{0xff}, 16)), ids.New(), ids.NewDelivery(time.Now()),
			ids.NewDelivery(time.UnixMilli(0)), ids.NewDelivery(time.UnixMilli(1 << 47))}, slices.Repeat(a.ids, 3)...)...)
		return
	case *time.Time:
		*x = pick(a, time.Time{}, time.Unix(0, 0), time.UnixMilli(math.MaxInt64/2), time.Now().AddDate(-100, 0, 0), time.Now().AddDate(1000, 0, 0))
		return
	case *[]byte:
		*x = pick(a, nil, []byte{}, []byte{0}, bytes.Repeat([]byte{0xff}, 1+a.IntN(3000)), a.flip(*x), (*x)[:a.IntN(len(*x)+1)], append(bytes.Clone(*x), 0))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && (v.NumField() == 1 || a.IntN(2) == 0) {
				a.change(v.Field(i))
			}
		}
	case reflect.Slice:
		a.changeList(v)
	case reflect.String:
		v.SetString(pick(a, "", "\x00", "\xff\xfe", strings.Repeat("a", 65), strings.Repeat("é", 300), "alice", "a'; DROP TABLE accounts; --", "\u202ealice"))
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(pick(a, 0, 1, -1, math.MaxInt64>>(64-v.Type().Bits()), math.MinInt64>>(64-v.Type().Bits()), a.Int64()>>a.IntN(64)))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(pick(a, 0, 1, 2, math.MaxUint64>>(64-v.Type().Bits()), math.MaxUint64>>(65-v.Type().Bits()), a.Uint64()>>a.IntN(64)))
	}
}

func (a *absurd) flip(b []byte) []byte {
	b = bytes.Clone(b)
	if len(b) > 0 {
		b[a.IntN(len(b))] ^= 1 << a.IntN(8)
	}
	return b
}

func (a *absurd) changeList(v reflect.Value) {
	switch n := v.Len(); a.IntN(4) {
	case 0:
		v.SetZero()
	case 1:
		if n > 0 {
			v.Set(reflect.AppendSlice(v, v)) // The same twice.
		}
	default:
		for i := range n {
			a.change(v.Index(i))
		}
	}
}

// Whatever is in a request, of a stranger or of a device, it gets an answer that is none of "internal", "busy" or malformed text,
// and so does the next. Nothing of it is an error in the log.
func TestAbsurdRequestsAreAnswered(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	alice, bob, _, _ := pair(t, c)
	chats := celltest.Group(t, alice, bob)
	requests := capturedRequests(t)
	const rounds = 60
	refused, taken := map[string]int{}, 0
	for who, conn := range map[string]*celltest.Conn{"a stranger": c.Dial(t), "a device": bob.Conn} {
		a := &absurd{rand.New(rand.NewPCG(7, uint64(len(who)))), []ids.ID{alice.Account(), alice.ID(), bob.Account(), bob.ID(), chats[0].Channel}}
		for range rounds {
			for _, sample := range requests {
				if sample.Method() == "endSession" {
					continue // It does what it should, and ends the connection.
				}
				r := reflect.New(reflect.TypeOf(sample).Elem())
				r.Elem().Set(reflect.ValueOf(sample).Elem())
				a.change(r.Elem())
				request := r.Interface().(wire.Request)
				b, err := wire.Marshal(wire.Envelope{CorrelationID: 1, Body: request})
				if err != nil || len(b) > frame.ControlLimit {
					continue // It cannot be written; frames that nobody writes are others' tests.
				}
				if x, ok := request.(*wire.RevokeDeviceRequest); ok && x.DeviceID == bob.ID() {
					continue // Likewise.
				}
				conn.Write(b)
				_, err = conn.Answer(1)
				if err == nil {
					taken++
					continue
				}
				e, ok := err.(*wire.Error) //nolint:errorlint // An answer.
				if !ok || e.Code == wire.CodeInternal || e.Code == wire.CodeBusy || e.Message == "" {
					t.Errorf("%s, %s %+v: %v", who, request.Method(), request, err)
				} else {
					refused[e.Code.String()]++
				}
			}
		}
		if _, err := conn.Call(&wire.GetAccountRequest{Name: "alice"}); (err == nil) != (who == "a device") {
			t.Errorf("%s is answered %v afterwards", who, err)
		}
	}
	t.Logf("taken: %d, refused: %v", taken, refused)
	if len(refused) < 8 {
		t.Errorf("few of them came to anything: %v", refused)
	}
	for line := range strings.Lines(c.Log.String()) {
		if strings.Contains(line, `"level":"ERROR"`) && !strings.Contains(line, "durability is reduced") || strings.Contains(line, "panic") {
			t.Error(line)
		}
	}
	alive(t, c.Dial(t))
}
