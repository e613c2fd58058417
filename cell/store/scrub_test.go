package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/internal/embeddedpg"
)

// scrubAll runs a scrub and returns what it found.
func scrubAll(t *testing.T, s *Store, o Scrub) ([]Damage, ScrubReport) {
	t.Helper()
	var list []Damage
	o.Found = func(d Damage) { list = append(list, d) }
	report, err := s.Scrub(t.Context(), o)
	must(t, err)
	return list, report
}

func TestScrubFindsWhatWasChangedBehindTheCellsBack(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice, bob := direct(t, s)
	const n = 100
	for i := range n {
		size := 10
		if i%10 == 0 {
			size = 40_000 // Out of line, over many pages.
		}
		must(t, s.AppendBatch(t.Context(), []*Append{message(channel, alice, strings.Repeat("secret text ", size/12+1))}))
	}
	if found, report := scrubAll(t, s, Scrub{}); len(found) != 0 || report.Messages != n+1 || report.Sealed < 9 || report.Damaged != 0 {
		t.Fatalf("%+v, %+v", found, report)
	}
	for _, sql := range []string{
		`UPDATE messages SET payload = set_byte(payload, 3, get_byte(payload, 3) # 1) WHERE channel_id = $1 AND seq = 11`, // Large.
		`UPDATE messages SET kind = 2 WHERE channel_id = $1 AND seq = 12`,
		`UPDATE messages SET checksum = set_byte(checksum, 0, get_byte(checksum, 0) # 255) WHERE channel_id = $1 AND seq = 13`,
		`UPDATE groups SET group_info_sealed = set_byte(group_info_sealed, 30, get_byte(group_info_sealed, 30) # 1) WHERE channel_id = $1`,
		`UPDATE devices SET name_sealed = (SELECT name_sealed FROM devices o WHERE o.device_id <> devices.device_id LIMIT 1) WHERE device_id = $1`,
	} {
		row := any(channel)
		if strings.Contains(sql, "device_id = $1") {
			row = bob.ID
		}
		_, err := s.pool.Exec(t.Context(), sql, row)
		must(t, err)
	}
	found, report := scrubAll(t, s, Scrub{Rate: 100_000})
	if len(found) != 5 || report.Damaged != 5 || report.Messages != n+1 {
		t.Errorf("found %+v", found)
	}
	for _, d := range found {
		text := fmt.Sprintf("%+v", d)
		isMessage := d.Channel == channel.String() && d.Seq >= 11 && d.Seq <= 13
		if !isMessage && d.Column == "" || strings.Contains(text, "secret") {
			t.Errorf("%s", text)
		}
	}
}

func TestAScrubGoesOnWhereItWasCutOff(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice, _ := direct(t, s)
	for range 200 {
		must(t, s.AppendBatch(t.Context(), []*Append{message(channel, alice, strings.Repeat("x", 3000))}))
	}
	_, whole := scrubAll(t, s, Scrub{})
	var at ScrubPosition
	read := int64(0)
	for steps := 0; ; steps++ {
		ctx, cancel := context.WithCancel(t.Context())
		var last ScrubReport
		_, err := s.Scrub(ctx, Scrub{After: at, Progress: func(p ScrubPosition, r ScrubReport) {
			at, last = p, r
			cancel()
		}})
		read += last.Messages
		cancel()
		if err == nil {
			break
		}
		if !errors.Is(err, ErrUnavailable) || steps > 100 {
			t.Fatal(err)
		}
	}
	if read != whole.Messages {
		t.Errorf("in pieces %d messages were read, at once %d", read, whole.Messages)
	}
}

func TestAScrubKeepsItsRate(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice, _ := direct(t, s)
	for range 100 {
		must(t, s.AppendBatch(t.Context(), []*Append{message(channel, alice, strings.Repeat("x", 3000))}))
	}
	begin := time.Now()
	_, report := scrubAll(t, s, Scrub{Rate: 100})
	if took := time.Since(begin); took < 900*time.Millisecond*time.Duration(report.Messages)/100 {
		t.Errorf("%d rows at 100 a second took %s", report.Messages, took)
	}
}

// Bytes are flipped in the files, as a failing disk does; the database is stopped meanwhile. What can be read is checked
// nevertheless, and every damage is found, and only those.
func TestScrubFindsDamageInTheFiles(t *testing.T) {
	t.Parallel()
	// With PostgreSQL's own checksums a page with a flipped bit is unreadable as a whole; without, only the row is wrong.
	for _, checksums := range []bool{true, false} {
		t.Run(fmt.Sprint("checksums ", checksums), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "pg")
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			start := func() *embeddedpg.Server {
				server, err := embeddedpg.Start(ctx, embeddedpg.Options{Dir: dir, NoFsync: true,
					Settings: map[string]string{"ignore_checksum_failure": map[bool]string{true: "off", false: "on"}[checksums]}})
				must(t, err)
				return server
			}
			server := start()
			t.Cleanup(func() {
				must(t, server.Stop(context.Background()))
				must(t, embeddedpg.Remove(dir))
			})
			s := open(t, server.URL(), 1)
			must(t, s.Migrate(ctx, quiet))
			must(t, s.EnsurePartitions(ctx, time.Now(), 2*day, []time.Duration{time.Hour, week}, fortnight))
			channel, alice, _ := direct(t, s)
			const n = 60
			mark := func(i int) string { return fmt.Sprintf("marker-%03d:", i) }
			for i := 1; i <= n; i++ {
				size := 500
				if i%7 == 0 {
					size = 9000 // In the table's side file.
				}
				must(t, s.AppendBatch(ctx, []*Append{message(channel, alice, mark(i)+strings.Repeat("y", size))}))
			}
			m := message(channel, alice, "x")
			part := partition{"messages", m.Message.ExpiresAt.UTC().Truncate(day)}.name()
			var files [2]string
			must(t, s.pool.QueryRow(ctx, `SELECT pg_relation_filepath(oid), pg_relation_filepath(reltoastrelid) FROM pg_class WHERE relname = $1`, part).Scan(&files[0], &files[1]))
			s.Close()
			must(t, server.Stop(ctx))

			damaged := map[uint64]bool{5: true, 14: true, 33: true}
			for seq := range damaged {
				flip(t, filepath.Join(dir, "data"), files[:], mark(int(seq)))
			}
			server = start()
			s = open(t, server.URL(), 1)
			found, report := scrubAll(t, s, Scrub{})
			if checksums {
				pages := 0
				for _, d := range found {
					if d.Channel == "" && strings.Contains(d.What, "the page cannot be read") {
						pages++
					} else if !damaged[d.Seq] {
						t.Errorf("found %+v", d)
					}
				}
				if pages != 2 || report.Messages == 0 || report.Damaged != 3 { // 14's page is in the side file: its key can be read.
					t.Errorf("found %+v, %+v", found, report)
				}
			} else {
				if report.Messages != n+1 {
					t.Errorf("%d messages were read", report.Messages)
				}
				for _, d := range found {
					if d.Channel != channel.String() || !damaged[d.Seq] {
						t.Errorf("found %+v", d)
					}
					delete(damaged, d.Seq)
				}
				if len(damaged) != 0 {
					t.Errorf("not found: %v", damaged)
				}
			}
			s.Close()
			must(t, server.Stop(ctx))

			wipe(t, filepath.Join(dir, "data", files[0]), 1) // A whole page of the table.
			server = start()
			s = open(t, server.URL(), 1)
			found, report = scrubAll(t, s, Scrub{})
			page := false
			for _, d := range found {
				page = page || d.Page == 1 && strings.Contains(d.What, "page")
			}
			if !page || report.Messages == 0 {
				t.Errorf("a page that cannot be read: %+v, %+v", found, report)
			}
			s.Close()
		})
	}
}

// flip changes one bit behind a marker in one of the files.
func flip(t *testing.T, data string, files []string, marker string) {
	t.Helper()
	for _, f := range files {
		path := filepath.Join(data, f)
		b, err := os.ReadFile(path)
		must(t, err)
		if at := strings.Index(string(b), marker); at >= 0 {
			b[at+len(marker)+3] ^= 1
			must(t, os.WriteFile(path, b, 0o600))
			return
		}
	}
	t.Fatalf("%s is in none of the files", marker)
}

// wipe fills a page with bytes that are none.
func wipe(t *testing.T, path string, page int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte(strings.Repeat("\xa5", 8192)), page*8192)
	must(t, err)
}
