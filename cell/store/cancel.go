package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
)

const (
	cancelDelay    = 100 * time.Millisecond // A query whose context ended gets this long to end by itself,
	abortDelay     = time.Second            // and this long until its connection is given up.
	cancelPatience = 2 * time.Second        // For the answer to a request to cancel.
	cancelSettles  = 100 * time.Millisecond // Until a request that was taken has reached the query, and cannot hit the next one.
)

// cancelQuery cancels a query whose context has ended, so that a client that goes away in the middle of a call does not
// cost the pool a connection. Unlike pgconn's own handler it always waits for the answer to its request: PgBouncer
// up to 1.18 ends with a fatal error when whoever asked it to cancel leaves before that.
type cancelQuery struct {
	conn     *pgconn.PgConn
	ended    chan struct{} // The query has.
	finished chan struct{}
}

func newCancelQuery(c *pgconn.PgConn) ctxwatch.Handler { return &cancelQuery{conn: c} }

// HandleCancel implements ctxwatch.Handler. The query's context has ended: what happens now has a time of its own.
func (q *cancelQuery) HandleCancel(canceled context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(canceled), cancelDelay+cancelPatience)
	q.ended, q.finished = make(chan struct{}), make(chan struct{})
	_ = q.conn.Conn().SetDeadline(time.Now().Add(abortDelay))
	go func(ended <-chan struct{}, finished chan<- struct{}) {
		defer close(finished)
		defer cancel()
		delay := time.NewTimer(cancelDelay)
		defer delay.Stop()
		select {
		case <-ended:
			return
		case <-delay.C:
		}
		_ = q.conn.CancelRequest(ctx) // Failed: the deadline ends the query's connection.
		time.Sleep(cancelSettles)
	}(q.ended, q.finished)
}

// HandleUnwatchAfterCancel implements ctxwatch.Handler.
func (q *cancelQuery) HandleUnwatchAfterCancel() {
	close(q.ended)
	<-q.finished
	_ = q.conn.Conn().SetDeadline(time.Time{})
}
