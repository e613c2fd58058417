package store

import (
	"slices"
	"strings"
	"testing"

	"quicproquo.dev/internal/embeddedpg/pgtest"
)

func TestWhichSettingsReduceDurability(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		name string
		d    Durability
		want []string
	}{
		{"safe, alone", Durability{Fsync: true, FullPageWrites: true, SynchronousCommit: "on"}, nil},
		{"safe, with a synchronous standby", Durability{Fsync: true, FullPageWrites: true, SynchronousCommit: "on", StandbyNames: "*", Standbys: 1, Synchronous: 1}, nil},
		{"stricter than needed", Durability{Fsync: true, FullPageWrites: true, SynchronousCommit: "remote_apply", StandbyNames: "*"}, nil},
		{"local means on without standbys", Durability{Fsync: true, FullPageWrites: true, SynchronousCommit: "local"}, nil},
		{"local with them", Durability{Fsync: true, FullPageWrites: true, SynchronousCommit: "local", StandbyNames: "*", Standbys: 1}, []string{"synchronous_commit"}},
		{"written, not flushed", Durability{Fsync: true, FullPageWrites: true, SynchronousCommit: "remote_write", StandbyNames: "a"}, []string{"synchronous_commit"}},
		{"off", Durability{Fsync: true, FullPageWrites: true, SynchronousCommit: "off"}, []string{"synchronous_commit"}},
		{"a standby that nobody waits for", Durability{Fsync: true, FullPageWrites: true, SynchronousCommit: "on", Standbys: 2}, []string{"synchronous_standby_names"}},
		{"all of it", Durability{SynchronousCommit: "off", Standbys: 1}, []string{"fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names"}},
	} {
		x.d.judge()
		var got []string
		for _, p := range x.d.Problems {
			got = append(got, p.Setting)
			if !strings.Contains(p.Message, "set ") {
				t.Errorf("%s: %s does not say what to set", x.name, p.Message)
			}
		}
		if !slices.Equal(got, x.want) || x.d.Reduced != (len(x.want) > 0) {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
	}
}

func TestDurabilityOfADurableDatabase(t *testing.T) {
	t.Parallel()
	s := open(t, pgtest.New(t, pgtest.Durable()), 1)
	d, err := s.Durability(t.Context())
	must(t, err)
	if d.Reduced || !d.Fsync || !d.FullPageWrites || d.SynchronousCommit != "on" {
		t.Errorf("%+v", d)
	}
}

// The connection that only wakes others waits for no disk; those that store do, whatever the default.
func TestWhichSessionsWaitForTheDisk(t *testing.T) {
	t.Parallel()
	s := open(t, pgtest.New(t)+"&options=-c%20synchronous_commit%3Doff", 1)
	for name, x := range map[string]struct {
		ask  func(sql string, to *string) error
		want string
	}{
		"common": {func(sql string, to *string) error { return s.pool.QueryRow(t.Context(), sql).Scan(to) }, "on"},
		"lane":   {func(sql string, to *string) error { return s.urgent.QueryRow(t.Context(), sql).Scan(to) }, "on"},
		"waker":  {func(sql string, to *string) error { return s.waker.QueryRow(t.Context(), sql).Scan(to) }, "off"},
	} {
		var got string
		must(t, x.ask(`SELECT current_setting('synchronous_commit')`, &got))
		if got != x.want {
			t.Errorf("%s: synchronous_commit is %s, want %s", name, got, x.want)
		}
	}
}
