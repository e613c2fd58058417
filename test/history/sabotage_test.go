//go:build linux

package history

import (
	"context"
	"errors"
	"testing"
	"time"

	"quicproquo.dev/test/history/load"
)

// trigger is SQL that breaks a cell: a function that runs for rows of a table, and its end.
func trigger(when, table, timing, body string) (sabotage, repair string) {
	kind := "TRIGGER sabotage " + when + " ON " + table
	if timing == "deferred" {
		kind = "CONSTRAINT TRIGGER sabotage " + when + " ON " + table + " INITIALLY DEFERRED"
	}
	return `CREATE FUNCTION sabotage() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ` + body + ` END $$;
		CREATE ` + kind + ` FOR EACH ROW EXECUTE FUNCTION sabotage()`, `DROP TRIGGER sabotage ON ` + table + `; DROP FUNCTION sabotage()`
}

// sabotages are what a broken cell could do, and the models that must notice.
var sabotages = []struct {
	name                      string
	when, table, timing, body string
	models                    []string
}{
	{"it forgets delivery ids", "BEFORE INSERT", "delivery_ids", "",
		`RETURN NULL;`, []string{"log"}},
	{"it loses messages that it acknowledged", "BEFORE INSERT", "messages", "",
		`IF NEW.kind = 1 AND NEW.seq % 15 = 0 THEN RETURN NULL; END IF; RETURN NEW;`, []string{"cursor"}},
	{"it changes the order of what is stored", "AFTER INSERT", "messages", "",
		`IF NEW.kind = 1 AND NEW.seq % 4 = 0 THEN
			UPDATE messages SET seq = -1 WHERE channel_id = NEW.channel_id AND seq = NEW.seq;
			UPDATE messages SET seq = NEW.seq WHERE channel_id = NEW.channel_id AND seq = NEW.seq - 1;
			UPDATE messages SET seq = NEW.seq - 1 WHERE channel_id = NEW.channel_id AND seq = -1;
		END IF; RETURN NULL;`, []string{"log"}},
	{"it uses a sequence twice", "BEFORE UPDATE", "channels", "",
		`IF NEW.kind < 3 AND NEW.last_seq > 0 AND NEW.last_seq % 20 = 0 THEN NEW.last_seq := NEW.last_seq - 1; END IF; RETURN NEW;`, []string{"log"}},
	{"it takes acknowledgements for more than they say", "BEFORE UPDATE", "cursors", "",
		`NEW.acked_seq := NEW.acked_seq + 1; RETURN NEW;`, []string{"cursor"}},
	{"it forgets acknowledgements", "BEFORE UPDATE", "cursors", "",
		`RETURN NULL;`, []string{"cursor"}},
	{"it hands KeyPackages out twice", "AFTER DELETE", "key_packages", "",
		`INSERT INTO key_packages VALUES (OLD.ref, OLD.device_id, OLD.last_resort, OLD.expires_at - interval '1 hour', OLD.package); RETURN NULL;`, []string{"packages"}},
	{"it forgets claims", "AFTER UPDATE", "key_package_claims", "",
		`DELETE FROM key_package_claims WHERE claimer_id = NEW.claimer_id AND request_id = NEW.request_id; RETURN NULL;`, []string{"packages"}},
	{"it forgets who made a group", "AFTER INSERT", "groups", "deferred",
		`DELETE FROM groups WHERE channel_id = NEW.channel_id; UPDATE channels SET generation = generation - 1 WHERE channel_id = NEW.channel_id; RETURN NULL;`, []string{"group"}},
	{"it forgets which channel a pair has", "AFTER UPDATE OF generation", "channels", "",
		`DELETE FROM direct_channels WHERE channel_id = NEW.channel_id; RETURN NULL;`, []string{"pair"}},
}

// A cell that is broken in its database is noticed, by the model that is about what is broken.
func TestABrokenCellIsNoticed(t *testing.T) {
	t.Parallel()
	o := Options{Name: "sabotage", Replicas: 2, Size: load.Small}
	b := bench(t, o)
	for i, s := range sabotages {
		t.Run(s.name, func(t *testing.T) { //nolint:paralleltest // they share a cell, which one of them breaks.
			o := o
			o.Patience, o.Keep = 4*time.Second, t.TempDir()
			o.Sabotage, o.Repair = trigger(s.when, s.table, s.timing, s.body)
			var r *Result
			for try := range 4 { // A slow machine may not come to where the cell is broken.
				o.Seed, o.For = uint64(10*i+try), 1500*time.Millisecond<<try //nolint:gosec // small.
				if r = run(t, b, o); r.found(s.models...) {
					break
				}
			}
			noticed(t, r, s.models...)
		})
	}
	t.Run("a run that is cut off ends", func(t *testing.T) { //nolint:paralleltest // as above.
		o := o
		o.Seed, o.For = 999, time.Hour
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.Run(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
	t.Run("and when it is not broken, nothing is", func(t *testing.T) { //nolint:paralleltest // as above.
		o := o
		o.Seed, o.For = 1000, time.Second
		right(t, run(t, b, o))
	})
}
