// Package telemetry is the cell's metrics.
package telemetry

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"quicproquo.dev/internal/logging"
)

// Metrics are the cell's own; names and meanings stand in docs/slo.md and in each Help.
type Metrics struct {
	Registry *prometheus.Registry

	Connections      prometheus.Gauge
	Handshakes       *prometheus.CounterVec   // result: ok, failed.
	HandshakeTime    prometheus.Histogram     // Seconds from a client's first packet to its end.
	HandshakesOpen   prometheus.Gauge         // Under way.
	Refused          *prometheus.CounterVec   // Connections, by reason: total, address, rate.
	Retries          prometheus.Counter       // Handshakes that were asked to prove their address.
	TooSlow          *prometheus.CounterVec   // Connections that were closed, by phase: hello, login, frame.
	Limited          *prometheus.CounterVec   // Requests refused, by bucket: connection, address, account, logins, lookups.
	Busy             *prometheus.CounterVec   // Requests refused, by queue: enqueue, enqueue_share, logins.
	Held             *prometheus.GaugeVec     // Connections not read at the moment, by what: requests, answers, calls, logins, limits.
	MailboxFull      prometheus.Counter       // Live messages left to be read from the database.
	Requests         *prometheus.HistogramVec // method, code; seconds.
	AuthLatency      *prometheus.HistogramVec // step: signup, login, session, refresh, token; seconds.
	EnqueueBatch     prometheus.Histogram     // Messages per commit.
	EnqueueCommit    prometheus.Histogram     // Seconds per commit.
	EnqueueQueue     prometheus.Gauge         // Requests waiting for a commit.
	Enqueued         *prometheus.CounterVec   // result: stored, duplicate, refused.
	EnqueuedBytes    prometheus.Counter       // MLS bytes stored.
	DeliveryLag      prometheus.Histogram     // Seconds from acceptance to push, live deliveries.
	DevicesBehind    prometheus.Counter       // Times that a device was told that messages are gone for it.
	DeliveriesHeld   prometheus.Counter       // Times that a damaged row stopped a channel for a device.
	Deliveries       *prometheus.CounterVec   // path: live, stored.
	Subscriptions    prometheus.Gauge
	Revoked          prometheus.Counter     // Connections ended because something of them was revoked.
	PolicyReloads    *prometheus.CounterVec // result: ok, invalid.
	DatabaseUp       prometheus.Gauge
	PartitionsFailed prometheus.Counter
	AuditFaults      prometheus.Counter
	Panics           prometheus.Counter

	EnqueueQueueBytes   prometheus.Gauge   // Payload waiting for a commit.
	AcksWaiting         prometheus.Gauge   // Cursors to be written.
	AcksDropped         prometheus.Counter // Cursors not written because too many waited.
	SubscriptionsPaused prometheus.Gauge   // Devices that have all the deliveries in flight that they may.

	Listening       prometheus.Gauge       // 1: wake-ups of other replicas are heard.
	Replicas        prometheus.Gauge       // Processes heard lately, this one included.
	WakeupsWaiting  prometheus.Gauge       // Things to tell other replicas.
	WakeupsDropped  prometheus.Counter     // Things not told because too many waited.
	WakeupsSent     *prometheus.CounterVec // result: ok, failed.
	Resealed        prometheus.Counter     // Sealed values that were sealed under a newer key.
	Durability      prometheus.Gauge       // 1: reduced.
	RemovalsWaiting prometheus.Gauge       // 1: an expired partition waits for somebody who reads it.
}

// latency buckets in seconds, from half a millisecond to 10 seconds.
var latency = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .15, .25, .4, .5, 1, 2.5, 5, 10}

// New registers every metric on a registry of its own.
func New() *Metrics {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	f := factory{r}
	return &Metrics{
		Registry:         r,
		Connections:      f.gauge("connections", "Open client connections."),
		Handshakes:       f.counters("handshakes_total", "QUIC handshakes by result; refused ones are none.", "result"),
		HandshakeTime:    f.histogram("handshake_duration_seconds", "Time from a client's first packet, after a Retry if there was one, to the end of its handshake.", latency),
		HandshakesOpen:   f.gauge("handshakes_in_progress", "Handshakes that have begun and not ended; above the policy's handshakesBeforeRetry newcomers must prove their address."),
		Refused:          f.counters("connections_refused_total", "Connections refused before they cost a handshake, by reason: total and address (as many as may be), rate (made too fast).", "reason"),
		Retries:          f.counter("handshake_retries_total", "First packets that were answered with a Retry, for their sender to prove its address."),
		TooSlow:          f.counters("connections_timed_out_total", "Connections closed because something did not come in time, by phase: hello, login, frame.", "phase"),
		Limited:          f.counters("requests_limited_total", "Requests answered rateLimited, by the bucket that was empty.", "bucket"),
		Busy:             f.counters("requests_busy_total", "Requests answered busy because a queue was full, by queue; enqueue_share: the account's share of it.", "queue"),
		Held:             f.gauges("connections_held", "Connections from which nothing is read at the moment, by what they wait for.", "by"),
		MailboxFull:      f.counter("mailbox_overflows_total", "Live messages that found a device's mailbox full and are read from the database instead."),
		Requests:         f.histograms("request_duration_seconds", "Time to answer a request, by method and error code (ok: none).", latency, "method", "code"),
		AuthLatency:      f.histograms("auth_duration_seconds", "Server time of an authentication step.", latency, "step"),
		EnqueueBatch:     f.histogram("enqueue_batch_messages", "Messages per commit.", prometheus.ExponentialBuckets(1, 2, 10)),
		EnqueueCommit:    f.histogram("enqueue_commit_seconds", "Time of one commit.", latency),
		EnqueueQueue:     f.gauge("enqueue_queue_depth", "Messages waiting for a commit."),
		Enqueued:         f.counters("enqueued_total", "Messages by result: stored, duplicate, refused.", "result"),
		EnqueuedBytes:    f.counter("enqueued_bytes_total", "MLS ciphertext bytes stored."),
		DeliveryLag:      f.histogram("delivery_lag_seconds", "Time from acceptance to push of live deliveries.", latency),
		DevicesBehind:    f.counter("devices_behind_total", "Times that a device was told that a channel's messages are gone for it: its retention has passed them."),
		DeliveriesHeld:   f.counter("deliveries_held_total", "Times that a channel was held back from a device because a stored row cannot be read; the log names it."),
		Deliveries:       f.counters("deliveries_total", "Pushed deliveries, by path: live from memory, stored from the database.", "path"),
		Revoked:          f.counter("connections_revoked_total", "Connections ended because their session, device or account was revoked."),
		Subscriptions:    f.gauge("subscriptions", "Devices that are subscribed."),
		PolicyReloads:    f.counters("policy_reloads_total", "Policy files read after a change, by result.", "result"),
		DatabaseUp:       f.gauge("database_up", "1 when the database answered the last check."),
		PartitionsFailed: f.counter("maintenance_failures_total", "Failed rounds of partition and expiry maintenance."),
		AuditFaults:      f.counter("audit_faults_total", "Times that the audit log was found changed or rolled back, or that events of it were lost; the log says which. Each is an incident."),
		Panics:           f.counter("panics_total", "Panics that were stopped before they could end the process; each is a defect."),

		EnqueueQueueBytes:   f.gauge("enqueue_queue_bytes", "Payload of messages waiting for a commit."),
		AcksWaiting:         f.gauge("acks_queue_depth", "Cursors that wait to be written."),
		AcksDropped:         f.counter("acks_dropped_total", "Cursors that were not written because too many waited; their devices are sent again what they had."),
		SubscriptionsPaused: f.gauge("subscriptions_paused", "Devices to which nothing is pushed until they acknowledge."),

		Listening:       f.gauge("wakeups_listening", "1 while wake-ups of other replicas are heard; else their messages are found by polling."),
		Replicas:        f.gauge("replicas", "Cell processes heard lately by wake-ups, this one included."),
		WakeupsWaiting:  f.gauge("wakeups_queue_depth", "Channels of which other replicas have yet to be told."),
		WakeupsDropped:  f.counter("wakeups_dropped_total", "Channels of which other replicas were not told because too many waited; they find out by polling."),
		WakeupsSent:     f.counters("wakeups_sent_total", "Texts sent to other replicas, by result.", "result"),
		Resealed:        f.counter("resealed_total", "Sealed values that were sealed anew under a newer key."),
		Durability:      f.gauge("durability_reduced", "1 while the database's settings are such that what was acknowledged may be lost; the log and /durability say which."),
		RemovalsWaiting: f.gauge("partition_removals_waiting", "1 while an expired partition cannot be removed because somebody, such as a backup, reads it."),
	}
}

// WatchDatabase shows how many connections to the database are in use and open, whenever somebody looks.
func (m *Metrics) WatchDatabase(stats func() (inUse, open int32)) {
	for name, pick := range map[string]func() float64{
		"database_connections_in_use": func() float64 { n, _ := stats(); return float64(n) },
		"database_connections_open":   func() float64 { _, n := stats(); return float64(n) },
	} {
		m.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "qpq", Name: name, Help: "Connections to the database, of all kinds."}, pick))
	}
}

// SetDurability sets Durability.
func (m *Metrics) SetDurability(reduced bool) {
	v := 0.0
	if reduced {
		v = 1
	}
	m.Durability.Set(v)
}

type factory struct{ r prometheus.Registerer }

func (f factory) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "qpq", Name: name, Help: help})
	f.r.MustRegister(g)
	return g
}

func (f factory) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "qpq", Name: name, Help: help}, labels)
	f.r.MustRegister(g)
	return g
}

func (f factory) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "qpq", Name: name, Help: help})
	f.r.MustRegister(c)
	return c
}

func (f factory) counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "qpq", Name: name, Help: help}, labels)
	f.r.MustRegister(c)
	return c
}

func (f factory) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "qpq", Name: name, Help: help, Buckets: buckets})
	f.r.MustRegister(h)
	return h
}

func (f factory) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "qpq", Name: name, Help: help, Buckets: buckets}, labels)
	f.r.MustRegister(h)
	return h
}

// Panicked counts and logs, with its stack, a panic that somebody recovered. What a panic's value says is logged only
// where it cannot be of anybody's data.
func (m *Metrics) Panicked(log *slog.Logger, where string, recovered any) {
	m.Panics.Inc()
	log.Error("a panic was stopped", "in", where, "panic", logging.Panic(recovered), "stack", logging.Stack(2))
}
