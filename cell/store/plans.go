package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// byIndexSQL has the statements that follow planned once for each connection, for any parameters, and look rows up by
// their keys: with true to the end of the transaction, with false to that of the session.
//
// What is sent together without a BEGIN is a transaction of the isolation that begin asks for, too.
//
// What the lane asks is the same each time, by primary key; only the lengths of its arrays differ. Left to itself
// PostgreSQL plans all of it anew for each batch, over every partition, which takes longer than the work itself; and
// where it takes the arrays for long enough it reads whole tables instead, which takes the longer the more is stored.
const byIndexSQL = `SELECT set_config('plan_cache_mode', 'force_generic_plan', %[1]t), set_config('enable_seqscan', 'off', %[1]t),
	set_config('enable_bitmapscan', 'off', %[1]t), set_config('enable_hashjoin', 'off', %[1]t), set_config('enable_mergejoin', 'off', %[1]t),
	set_config('default_transaction_isolation', 'read committed', %[1]t)`

var byIndexOnceSQL = fmt.Sprintf(byIndexSQL, true)

// byIndex readies a connection that is used for such statements alone, after before did. Behind a transaction pooler a
// setting would stay behind in somebody else's session; there queueByIndex makes it.
func byIndex(before func(context.Context, *pgx.Conn) error) func(context.Context, *pgx.Conn) error {
	return func(ctx context.Context, c *pgx.Conn) error {
		if err := before(ctx, c); err != nil {
			return err
		}
		_, err := c.Exec(ctx, fmt.Sprintf(byIndexSQL, false))
		return err
	}
}

// queueByIndex makes the settings for this transaction, unless the session has them, and returns how many statements
// that takes.
func (s *Store) queueByIndex(b *pgx.Batch) int {
	if s.pooling != PoolingTransaction {
		return 0
	}
	b.Queue(byIndexOnceSQL)
	return 1
}
