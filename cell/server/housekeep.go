package server

import (
	"context"
	"errors"
	"slices"
	"time"

	"quicproquo.dev/cell/channels"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/revocation"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
)

const (
	housekeepEvery  = 10 * time.Minute
	partitionsAhead = 49 * time.Hour // Two midnights: a cell whose maintenance fails for a day goes on storing.
	claimsKept      = 24 * time.Hour
	databaseEvery   = 5 * time.Second
	reloadEvery     = 10 * time.Second
)

// prepare makes the partitions that messages and delivery ids need next under p. Without them nothing can be stored.
func (s *Server) prepare(ctx context.Context, p *policy.Policy) error {
	kept := p.Retention
	own, err := s.store.Retentions(ctx)
	if err != nil {
		return err
	}
	return s.store.EnsurePartitions(ctx, time.Now(), partitionsAhead,
		append(own, time.Duration(kept.Messages), time.Duration(kept.Inbox)), time.Duration(kept.DedupWindow))
}

// sweep removes what has expired. What cannot be removed now, because a backup reads it, waits.
func (s *Server) sweep(ctx context.Context) error {
	now := time.Now()
	dropped, err := s.store.DropExpiredPartitions(ctx, now, time.Duration(s.policy.current().Retention.DedupWindow))
	if len(dropped) > 0 {
		s.log.InfoContext(ctx, "expired partitions removed", "partitions", slices.Sorted(slices.Values(dropped)))
	}
	s.metrics.RemovalsWaiting.Set(0)
	if errors.Is(err, store.ErrRemovalWaits) { // As it should while a backup runs: no failure.
		s.metrics.RemovalsWaiting.Set(1)
		s.log.InfoContext(ctx, "the removal of expired partitions waits for somebody who reads them, such as a backup", "reason", err)
		err = nil
	}
	return errors.Join(err, s.store.SweepKeyPackages(ctx, now, now.Add(-claimsKept), store.FewKeyPackages(s.policy.current().MLS.MaxKeyPackagesPerDevice)), s.store.SweepSessions(ctx, now),
		s.store.SweepGroups(ctx, now, now.Add(-channels.VoteLife)),
		s.store.SweepRevocations(ctx, now.Add(-revocation.Kept)), s.store.SweepAuditKeys(ctx, now), s.forget(ctx))
}

// forget deletes messages that everybody has acknowledged, where none are kept longer, a bounded number at a time.
func (s *Server) forget(ctx context.Context) error {
	for after := (ids.ID{}); ctx.Err() == nil; {
		last, more, err := s.store.PurgeAcknowledged(ctx, after, !s.policy.current().Retention.History)
		if err != nil || !more {
			return err
		}
		after = last
	}
	return nil
}

// maintain is one round of both.
func (s *Server) maintain(ctx context.Context) {
	err := errors.Join(s.prepare(ctx, s.policy.current()), s.sweep(ctx))
	if err != nil && ctx.Err() == nil {
		s.metrics.PartitionsFailed.Inc()
		s.log.ErrorContext(ctx, "database maintenance failed; it is tried again", "error", err)
	}
}

// housekeep maintains the database until ctx ends.
func (s *Server) housekeep(ctx context.Context) {
	every(ctx, housekeepEvery, func() { s.maintain(ctx) })
}

// watchDatabase checks the database and logs when it goes and when it is back, until ctx ends.
func (s *Server) watchDatabase(ctx context.Context) {
	away := false
	every(ctx, databaseEvery, func() {
		err := s.pingDatabase(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil && !away:
			away = true
			s.log.ErrorContext(ctx, "the database is away; requests that need it are answered busy", "error", err)
		case err == nil && away:
			away = false
			s.log.InfoContext(ctx, "the database is back")
		}
	})
}

func (s *Server) pingDatabase(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, databaseEvery)
	defer cancel()
	if err := s.store.Ping(ctx); err != nil {
		s.metrics.DatabaseUp.Set(0)
		return err
	}
	s.metrics.DatabaseUp.Set(1)
	return nil
}

// every calls f now and then once each period, until ctx ends.
func every(ctx context.Context, period time.Duration, f func()) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		f()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// watchFiles reads the policy and the certificate again every few seconds, until ctx ends. Mounted files change by a
// swapped symbolic link, which is why their content is compared rather than watched.
func (s *Server) watchFiles(ctx context.Context) {
	every(ctx, reloadEvery, func() { s.Reload(ctx) })
}

// Reload takes the policy and the certificate as they are in their files now. What is invalid, or cannot be used yet,
// never replaces what is in use. The running server calls it every few seconds itself.
func (s *Server) Reload(ctx context.Context) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	s.clientProblem.note(ctx, s, "the client CAs were not replaced", s.reloadClients(), func() {})
	s.policyProblem.note(ctx, s, "the policy was not replaced", s.reloadPolicy(ctx), func() {
		s.metrics.PolicyReloads.WithLabelValues("invalid").Inc()
	})
	s.certProblem.note(ctx, s, "the certificate was not replaced", s.cert.Reload(), func() {})
	s.recordCertificate(ctx)
}

// reloadPolicy has the partitions of a new policy before the policy itself: a message must never find no place.
func (s *Server) reloadPolicy(ctx context.Context) error {
	p, err := s.policy.changed()
	if err != nil || p == nil {
		return err
	}
	if err := s.clients.Check(p.Access.ClientCertificates); err != nil {
		return err
	}
	if err := s.prepare(ctx, p); err != nil {
		s.log.WarnContext(ctx, "preparing partitions for a new policy failed; it is tried again", "error", err)
		return nil
	}
	if err := s.recordPolicy(ctx, p); err != nil {
		s.log.WarnContext(ctx, "a new policy could not be recorded in the audit log; it is tried again", "error", err)
		return nil
	}
	s.policy.use(p)
	s.metrics.PolicyReloads.WithLabelValues("ok").Inc()
	s.log.InfoContext(ctx, "policy replaced", "policy", s.policy.hash())
	return nil
}

// clientCertificates is what the policy in use makes of client certificates.
func (s *Server) clientCertificates() policy.CertificateMode {
	return s.policy.current().Access.ClientCertificates
}

// reloadClients reads the client CAs again, where they are in use.
func (s *Server) reloadClients() error {
	if s.clientCertificates() == policy.CertificatesNone {
		return nil
	}
	return s.clients.CAs.Reload()
}

// problem is what was wrong at the last look; it is logged and counted when it is another than before.
type problem struct{ last string }

func (p *problem) note(ctx context.Context, s *Server, what string, err error, count func()) {
	now := ""
	if err != nil {
		now = err.Error()
	}
	if now != "" && now != p.last {
		count()
		s.log.ErrorContext(ctx, what, "error", err) //nolint:sloglint // every caller passes a constant.
	}
	p.last = now
}
