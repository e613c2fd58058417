package store

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
)

const (
	wakeChannel = "qpq_wakeups" // PostgreSQL's name for what is listened on.

	// WakeupSize is the most bytes that one wake-up's text may have: PostgreSQL's limit is 8000.
	WakeupSize = 7900
)

// ErrNoWakeups says that wake-ups cannot work: a transaction pooler has no session that could listen.
var ErrNoWakeups = errors.New("there are no wake-ups behind a transaction pooler")

// Notify sends texts, each of at most WakeupSize bytes, to every process that listens, this one included. It runs on a
// connection of its own and waits for no disk. One goroutine calls it.
func (s *Store) Notify(ctx context.Context, texts []string) error {
	if s.pooling == PoolingTransaction {
		return ErrNoWakeups
	}
	_, err := s.waker.Exec(ctx, `SELECT pg_notify('`+wakeChannel+`', t) FROM unnest($1::text[]) t`, texts)
	return classify(err)
}

// Listen calls heard for each text that any process has sent, on a connection of its own, until that ends or ctx does:
// it always returns an error. ready is called once nothing that is sent is missed any more. Both run in the caller's
// goroutine and must not take long.
func (s *Store) Listen(ctx context.Context, ready func(), heard func(text string)) error {
	if s.pooling == PoolingTransaction {
		return ErrNoWakeups
	}
	config := s.pool.Config().ConnConfig
	config.OnNotification = nil // WaitForNotification returns them.
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return classify(err)
	}
	defer func() {
		ctx, cancel := cleanup(ctx)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if _, err := conn.Exec(ctx, `LISTEN `+wakeChannel); err != nil {
		return classify(err)
	}
	ready()
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return classify(err)
		}
		heard(n.Payload)
	}
}
