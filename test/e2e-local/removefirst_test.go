package e2elocal

import (
	"fmt"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
)

// query is one value of the cell's database.
func query[T any](c *cell, sql string) (v T) {
	c.t.Helper()
	uri, err := os.ReadFile(c.path("database"))
	if err != nil {
		c.t.Fatal(err)
	}
	conn, err := pgx.Connect(c.t.Context(), string(uri))
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close(c.t.Context())
	if err := conn.QueryRow(c.t.Context(), sql).Scan(&v); err != nil {
		c.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// A conversation goes on without a device that was revoked, whoever writes first: the SDK makes the channel's next group of the
// devices that are left. What is sent to everybody, revoked device and all, is refused meanwhile.
func TestAConversationGoesOnAfterARevocation(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]func(alice, bob *person){
		"the other writes first": func(alice, bob *person) {
			alice.dm(bob, "to one")
			bob.expect("to one")
			bob.dm(alice, "understood")
			alice.expect("understood")
		},
		"the account of it writes first": func(alice, bob *person) {
			bob.dm(alice, "to one")
			alice.expect("to one")
			alice.dm(bob, "understood")
			bob.expect("understood")
		},
		"both at once": func(alice, bob *person) {
			done := make(chan error, 1)
			go func() {
				_, err := alice.SendDM(alice.t.Context(), "bob", "from alice")
				done <- err
			}()
			bob.dm(alice, "from bob")
			if err := <-done; err != nil {
				alice.t.Error(err)
			}
			alice.expect("from bob")
			bob.expect("from alice")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := makeCell(t)
			alice, bob := c.signup("alice"), c.signup("bob")
			tablet := c.login("bob")
			tablet.expect() // It has KeyPackages with the cell.
			alice.dm(bob, "to both")
			bob.expect("to both")
			tablet.expect("to both")
			if err := bob.RevokeDevice(t.Context(), tablet.Whoami().DeviceID); err != nil {
				t.Fatal(err)
			}
			device := tablet.Whoami().DeviceID
			if marked := query[bool](c, fmt.Sprintf(`SELECT remove_first = ARRAY['%x'::uuid] FROM channels WHERE generation = 1`, device[:])); !marked {
				t.Error("the channel is not marked")
			}
			first(alice, bob)
			if n := query[int](c, `SELECT generation FROM channels WHERE generation > 0 AND remove_first IS NULL`); n != 2 {
				t.Errorf("generation %d", n)
			}
			if n := query[int](c, fmt.Sprintf(`SELECT count(*) FROM cursors WHERE device_id = '%x'`, device[:])); n != 0 {
				t.Error("the revoked device reads on")
			}
			if n := query[int](c, `SELECT count(*) FROM messages WHERE kind = 1 AND generation = 1`); n != 1 {
				t.Errorf("%d messages of the group with the revoked device in it", n)
			}
		})
	}
}
