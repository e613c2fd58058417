package server

import (
	"context"
	"errors"
	"time"

	"quicproquo.dev/cell/endpoint"
)

const (
	housekeepEvery  = 10 * time.Minute
	partitionsAhead = 49 * time.Hour // Two midnights: a cell whose maintenance fails for a day goes on storing.
	claimsKept      = 24 * time.Hour
	databaseEvery   = 5 * time.Second
	reloadEvery     = 10 * time.Second
)

// maintain makes the partitions that are needed next and removes what has expired.
func (s *Server) maintain(ctx context.Context) error {
	now, kept := time.Now(), s.policy.current().Retention
	err := s.store.EnsurePartitions(ctx, now, partitionsAhead, []time.Duration{time.Duration(kept.Messages), time.Duration(kept.Inbox)}, time.Duration(kept.DedupWindow))
	if err != nil {
		return err
	}
	dropped, err := s.store.DropExpiredPartitions(ctx, now, time.Duration(kept.DedupWindow))
	if len(dropped) > 0 {
		s.log.InfoContext(ctx, "expired partitions removed", "partitions", dropped)
	}
	return errors.Join(err, s.store.SweepKeyPackages(ctx, now, now.Add(-claimsKept)), s.store.SweepSessions(ctx, now))
}

// housekeep maintains the database and watches it, until ctx ends.
func (s *Server) housekeep(ctx context.Context) {
	sweep, check := time.NewTicker(housekeepEvery), time.NewTicker(databaseEvery)
	defer sweep.Stop()
	defer check.Stop()
	s.checkDatabase(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-check.C:
			s.checkDatabase(ctx)
		case <-sweep.C:
			if err := s.maintain(ctx); err != nil && ctx.Err() == nil {
				s.metrics.PartitionsFailed.Inc()
				s.log.ErrorContext(ctx, "database maintenance failed; it is tried again", "error", err)
			}
		}
	}
}

func (s *Server) checkDatabase(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, databaseEvery)
	defer cancel()
	if err := s.store.Ping(ctx); err != nil {
		s.metrics.DatabaseUp.Set(0)
		return
	}
	s.metrics.DatabaseUp.Set(1)
}

// reload reads the policy and the certificate again when their files change, until ctx ends. Mounted files change by
// a swapped symbolic link, which is why their content is compared rather than watched.
func (s *Server) reload(ctx context.Context, cert *endpoint.Certificate) {
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.reloadPolicy(ctx)
			if err := cert.Reload(); err != nil {
				s.log.ErrorContext(ctx, "the certificate was not replaced", "error", err)
			}
		}
	}
}

func (s *Server) reloadPolicy(ctx context.Context) {
	changed, err := s.policy.reload()
	switch {
	case err != nil:
		s.metrics.PolicyReloads.WithLabelValues("invalid").Inc()
		s.log.ErrorContext(ctx, "the policy was not replaced", "error", err)
	case changed:
		s.metrics.PolicyReloads.WithLabelValues("ok").Inc()
		s.log.InfoContext(ctx, "policy replaced", "policy", s.policy.hash())
		if err := s.maintain(ctx); err != nil {
			s.log.ErrorContext(ctx, "preparing partitions for the new policy failed; it is tried again", "error", err)
		}
	}
}
