package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pressly/goose/v3/lock"
)

// Pooling says what stands between this process and PostgreSQL.
type Pooling string

const (
	// PoolingSession is the default: nothing stands there, or a pooler that gives each of our connections one of the database's for as long as it lives.
	PoolingSession Pooling = "session"
	// PoolingTransaction means a pooler, such as PgBouncer with pool_mode=transaction, that lends a connection of the
	// database for one transaction at a time. Nothing may be left in a session: no prepared statement, no setting, no
	// session lock, no LISTEN.
	PoolingTransaction Pooling = "transaction"
)

// check reports a value that is none of ours. The zero value is PoolingSession.
func (p Pooling) check() error {
	switch p {
	case "", PoolingSession, PoolingTransaction:
		return nil
	}
	return fmt.Errorf("database pooling is %q: write %q or %q", string(p), PoolingSession, PoolingTransaction)
}

// lockPoll is how often a lock that another process holds is tried again.
const lockPoll = 100 * time.Millisecond

// tryLock takes an advisory lock for as long as a transaction of its own is open, on a connection of its own. A
// transaction belongs to one connection of the database also behind a transaction pooler, where a session lock would be
// taken in one session and given back in another. The transaction holds no lock on a table, and between its statements no
// snapshot, so that nobody waits for it: the simple protocol leaves no portal open, which would keep one. The lock is free when unlock
// returns, or sooner when its connection breaks: it keeps processes out of each other's way, and what they do is right without it.
func (s *Store) tryLock(ctx context.Context, id int64) (unlock func(), locked bool, err error) {
	tx, err := s.locks.BeginTx(ctx, pgx.TxOptions{BeginQuery: begin})
	if err != nil {
		return nil, false, classify(err)
	}
	end := func() {
		ctx, cancel := cleanup(ctx)
		defer cancel()
		_ = tx.Rollback(ctx) // When that fails its connection is closed, and the lock goes with it.
	}
	// A database may end sessions that idle in a transaction: this one idles on purpose.
	if _, err = tx.Exec(ctx, `SET LOCAL idle_in_transaction_session_timeout = 0`); err == nil {
		err = tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock($1)`, pgx.QueryExecModeSimpleProtocol, id).Scan(&locked)
	}
	if err != nil || !locked {
		end()
		return nil, false, classify(err)
	}
	return end, true, nil
}

// waitLock is tryLock until it succeeds or ctx ends.
func (s *Store) waitLock(ctx context.Context, id int64) (unlock func(), err error) {
	for {
		unlock, locked, err := s.tryLock(ctx, id)
		if err != nil || locked {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, classify(ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

// migrationLocker has one process at a time migrate. It shares its lock's number with the session lock that releases
// before it take.
type migrationLocker struct {
	s      *Store
	unlock func()
}

// SessionLock implements lock.SessionLocker.
func (m *migrationLocker) SessionLock(ctx context.Context, _ *sql.Conn) (err error) {
	m.unlock, err = m.s.waitLock(ctx, lock.DefaultLockID)
	return err
}

// SessionUnlock implements lock.SessionLocker.
func (m *migrationLocker) SessionUnlock(context.Context, *sql.Conn) error {
	m.unlock()
	return nil
}

// lockTimeout has a statement of conn give up waiting for locks after d, and returns what takes that back. Behind a
// transaction pooler a setting would stay behind in somebody else's session; there the statement is canceled from here.
func (s *Store) lockTimeout(ctx context.Context, conn *pgxpool.Conn, d time.Duration) (reset func(), err error) {
	if s.pooling == PoolingTransaction {
		return func() {}, nil
	}
	if _, err := conn.Exec(ctx, fmt.Sprintf(`SET lock_timeout = %d`, d.Milliseconds())); err != nil {
		return nil, err
	}
	return func() {
		ctx, cancel := cleanup(ctx)
		defer cancel()
		if _, err := conn.Exec(ctx, `RESET lock_timeout`); err != nil {
			_ = conn.Conn().Close(ctx)
		}
	}, nil
}
