package ids

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestDeliveryIDsCarryTheirTime(t *testing.T) {
	t.Parallel()
	for _, at := range []time.Time{
		time.UnixMilli(0),
		time.UnixMilli(1),
		time.UnixMilli(1 << 16), // The first that needs the upper 32 bits.
		time.Date(2026, 2, 28, 23, 59, 59, 999_000_000, time.UTC),
		time.UnixMilli(1<<48 - 1), // The last that fits.
	} {
		id := NewDelivery(at)
		got, ok := id.DeliveryTime()
		if !ok || !got.Equal(at) {
			t.Errorf("%v: %v, %v", at, got, ok)
		}
		if id[6]>>4 != 7 || id[8]>>6 != 2 {
			t.Errorf("%v: version %d, variant %b", id, id[6]>>4, id[8]>>6)
		}
	}
}

func TestDeliveryIDsKeepMillisecondsOnly(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6_789_012, time.UTC)
	if got, _ := NewDelivery(at).DeliveryTime(); !got.Equal(at.Truncate(time.Millisecond)) {
		t.Errorf("%v, want %v cut to milliseconds", got, at)
	}
}

// RFC 9562 appendix A.6.
func TestDeliveryTimeOfThePublishedExample(t *testing.T) {
	t.Parallel()
	id, err := Parse("017f22e279b07cc398c4dc0c0c07398f")
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := id.DeliveryTime(); !ok || got.UnixMilli() != 1645557742000 {
		t.Errorf("%d, %v; want 1645557742000", got.UnixMilli(), ok)
	}
}

func TestDeliveryTimeRefusesOtherIDs(t *testing.T) {
	t.Parallel()
	v7 := NewDelivery(time.UnixMilli(1_700_000_000_000))
	for name, change := range map[string]func(*ID){
		"zero":           func(id *ID) { *id = ID{} },
		"version 4":      func(id *ID) { id[6] = 0x40 | id[6]&0x0f },
		"variant 0":      func(id *ID) { id[8] &= 0x3f },
		"variant 3 (C0)": func(id *ID) { id[8] |= 0xc0 },
	} {
		id := v7
		change(&id)
		if got, ok := id.DeliveryTime(); ok || !got.IsZero() {
			t.Errorf("%s: %v, %v", name, got, ok)
		}
	}
}

func TestNewIDsDiffer(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_700_000_000_000)
	seen := map[ID]bool{{}: true}
	for range 1000 {
		for _, id := range []ID{New(), NewDelivery(now)} {
			if seen[id] {
				t.Fatalf("%v twice, or zero", id)
			}
			seen[id] = true
		}
	}
}

func TestIsZero(t *testing.T) {
	t.Parallel()
	if !(ID{}).IsZero() || (ID{15: 1}).IsZero() || (ID{0: 1}).IsZero() {
		t.Error("IsZero is true for all zero, and for nothing else")
	}
}

func TestParseIsTheInverseOfString(t *testing.T) {
	t.Parallel()
	id := New()
	if got, err := Parse(id.String()); err != nil || got != id || len(id.String()) != 2*Size {
		t.Errorf("%v, %v; want %v", got, err, id)
	}
	if got, err := Parse(strings.ToUpper(id.String())); err != nil || got != id {
		t.Errorf("in capitals: %v, %v; want %v", got, err, id)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	good := strings.Repeat("0a", Size)
	for name, s := range map[string]string{
		"nothing": "", "too short": good[2:], "too long": good + "00", "an odd number of digits": good[1:],
		"no hex": "zz" + good[2:], "dashes": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f", "a space": good[:30] + " a",
	} {
		if id, err := Parse(s); err == nil || !id.IsZero() {
			t.Errorf("%s: %v, %v", name, id, err)
		}
		id := New()
		if err := id.UnmarshalText([]byte(s)); err == nil || !id.IsZero() {
			t.Errorf("UnmarshalText, %s: %v, %v", name, id, err)
		}
	}
}

func TestFromBytes(t *testing.T) {
	t.Parallel()
	for n := range 3 * Size {
		b := bytes.Repeat([]byte{5}, n)
		id, err := FromBytes(b)
		if (err == nil) != (n == Size) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if err == nil {
			if b[0] = 6; id[0] != 5 {
				t.Error("the id aliases the slice it was read from")
			}
		}
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	type object struct{ Channel ID }
	want := object{New()}
	b, err := json.Marshal(want)
	if err != nil || string(b) != `{"Channel":"`+want.Channel.String()+`"}` {
		t.Fatalf("%s, %v", b, err)
	}
	var got object
	if err := json.Unmarshal(b, &got); err != nil || got != want {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

func TestGroupID(t *testing.T) {
	t.Parallel()
	channel := ID{0: 1, 15: 0xff}
	b := GroupID(channel, 0x01020304)
	if want := append(channel[:], 1, 2, 3, 4); !bytes.Equal(b, want) || len(b) != GroupIDSize {
		t.Fatalf("%x, want %x", b, want)
	}
	if got, generation, err := ParseGroupID(b); err != nil || got != channel || generation != 0x01020304 {
		t.Errorf("%v, %d, %v", got, generation, err)
	}
	for _, n := range []int{0, Size, GroupIDSize - 1, GroupIDSize + 1} {
		if _, _, err := ParseGroupID(make([]byte, n)); err == nil {
			t.Errorf("%d bytes were taken", n)
		}
	}
}
