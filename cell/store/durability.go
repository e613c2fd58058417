package store

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Durability is what the database does for a commit before it says that it is done, as of At.
type Durability struct {
	At       time.Time `json:"at"`
	Reduced  bool      `json:"reduced"`
	Problems []Problem `json:"problems,omitempty"`

	Fsync             bool   `json:"fsync"`
	FullPageWrites    bool   `json:"fullPageWrites"`
	SynchronousCommit string `json:"synchronousCommit"` // Of the sessions that store messages.
	StandbyNames      string `json:"synchronousStandbyNames"`
	Standbys          int    `json:"standbys"`            // That stream now, as far as the role may see.
	Synchronous       int    `json:"synchronousStandbys"` // Of them.
}

// Problem is a setting under which what was acknowledged may be lost, and what to do.
type Problem struct {
	Setting string `json:"setting"`
	Value   string `json:"value"`
	Message string `json:"message"`
}

// durabilitySQL looks at the session's own settings. Standbys are physical: logical replication is nobody's successor.
const durabilitySQL = `SELECT current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on', current_setting('synchronous_commit'), current_setting('synchronous_standby_names'),
	count(*) FILTER (WHERE r.state = 'streaming'), count(*) FILTER (WHERE r.state = 'streaming' AND r.sync_state IN ('sync', 'quorum'))
	FROM (SELECT) one LEFT JOIN pg_stat_replication r ON NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')`

// Durability asks the sessions that store messages.
func (s *Store) Durability(ctx context.Context) (Durability, error) {
	d := Durability{At: time.Now().UTC().Truncate(time.Second)}
	err := s.urgent.QueryRow(ctx, durabilitySQL).Scan(&d.Fsync, &d.FullPageWrites, &d.SynchronousCommit, &d.StandbyNames, &d.Standbys, &d.Synchronous)
	if err != nil {
		return Durability{}, classify(err)
	}
	d.judge()
	return d, nil
}

// judge says what is wrong with the settings.
func (d *Durability) judge() {
	d.Problems = nil
	add := func(wrong bool, setting, value, message string) {
		if wrong {
			d.Problems = append(d.Problems, Problem{setting, value, message})
		}
	}
	add(!d.Fsync, "fsync", "off", "a crash of the database's machine can lose or corrupt everything; set fsync = on in postgresql.conf and reload")
	add(!d.FullPageWrites, "full_page_writes", "off", "a crash in the middle of writing a page can corrupt it; set full_page_writes = on in postgresql.conf and reload")
	switch d.SynchronousCommit {
	case "on", "remote_apply":
	default:
		what := "a crash can lose the last acknowledged messages"
		if d.SynchronousCommit == "local" || d.SynchronousCommit == "remote_write" {
			what = "a failover can lose the last acknowledged messages"
			if d.StandbyNames == "" {
				break // Without synchronous standbys these two mean what on means.
			}
		}
		add(true, "synchronous_commit", d.SynchronousCommit, what+"; set it to on for the cell's role: ALTER ROLE ... SET synchronous_commit = on, and see that no pooler changes it")
	}
	add(d.Standbys > 0 && strings.TrimSpace(d.StandbyNames) == "", "synchronous_standby_names", "",
		fmt.Sprintf("%d standbys follow, and none of them is waited for: a failover can lose the last acknowledged messages; set synchronous_standby_names, such as 'ANY 1 (*)', in postgresql.conf and reload", d.Standbys))
	d.Reduced = len(d.Problems) > 0
}

// String is one line for people.
func (d *Durability) String() string {
	if !d.Reduced {
		return "what is acknowledged survives a crash"
	}
	parts := make([]string, len(d.Problems))
	for i, p := range d.Problems {
		parts[i] = fmt.Sprintf("%s is %q: %s", p.Setting, p.Value, p.Message)
	}
	return strings.Join(parts, "; ")
}
