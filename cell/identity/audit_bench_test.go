package identity

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/internal/embeddedpg/pgtest"
	"quicproquo.dev/schema/opaqueconf"
	"quicproquo.dev/schema/wire"
)

// crowd are people who log in at once, at a service of their own.
type crowd struct {
	*fixture
	people []*person
}

func makeCrowd(b *testing.B, n int, kept, told bool) *crowd {
	b.Helper()
	st, err := store.Open(b.Context(), store.Options{URI: pgtest.New(b, pgtest.Durable()), Sealer: testSealer(b)})
	must(b, err)
	b.Cleanup(st.Close)
	quiet := slog.New(slog.DiscardHandler)
	must(b, st.Migrate(b.Context(), quiet))
	f := &fixture{clock: time.Now(), rules: policy.Default(), keys: cellkeys.Generate()}
	f.Service, err = New(st, f.keys, func() *policy.Policy { return f.rules }, f.time, quiet)
	must(b, err)
	if kept {
		f.withAudit(b)
	}
	if !told {
		f.Audit(audit.Discard)
	}
	c := &crowd{fixture: f}
	for i := range n {
		p := newPerson(fmt.Sprintf("person%d", i))
		_, err := f.signup(b.Context(), p)
		must(b, err)
		c.people = append(c.people, p)
	}
	return c
}

// rate has everybody log in some times and returns logins per second.
func (c *crowd) rate(b *testing.B, each int) float64 {
	b.Helper()
	start := time.Now()
	var all sync.WaitGroup
	for _, p := range c.people {
		all.Go(func() {
			for range each {
				if err := c.logIn(b.Context(), p); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	return float64(len(c.people)*each) / time.Since(start).Seconds()
}

func (c *crowd) logIn(ctx context.Context, p *person) error {
	client, err := opaqueconf.Configuration().Client()
	if err != nil {
		return err
	}
	ke1, err := client.GenerateKE1([]byte("password"))
	if err != nil {
		return err
	}
	answer, l, err := c.LoginStart(ctx, &wire.LoginStartRequest{Name: p.name, KE1: ke1.Serialize()}, exporter)
	if err != nil {
		return err
	}
	ke2, err := client.Deserialize.KE2(answer.KE2)
	if err != nil {
		return err
	}
	ke3, _, _, err := client.GenerateKE3(ke2, nil, nil, quickly())
	if err != nil {
		return err
	}
	if _, err := c.LoginFinish(ctx, l, &wire.LoginFinishRequest{KE3: ke3.Serialize()}); err != nil {
		return err
	}
	_, _, err = c.StartSession(ctx, l, &wire.StartSessionRequest{Certificate: p.cert.Marshal(), Proof: p.proof()}, exporter)
	return err
}

// What the audit log costs logins, many at once, on a database that syncs to disk. The three take turns in one run: no
// log, one that has the sessions alone, and all of it.
func BenchmarkLoginsAtOnce(b *testing.B) {
	const each = 8
	for _, n := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			crowds := []*crowd{makeCrowd(b, n, false, false), makeCrowd(b, n, true, false), makeCrowd(b, n, true, true)}
			rates := make([][]float64, len(crowds))
			for range b.N {
				for i, c := range crowds {
					rates[i] = append(rates[i], c.rate(b, each*max(1, 16/n)))
				}
			}
			median := func(i int) float64 { slices.Sort(rates[i]); return rates[i][len(rates[i])/2] }
			b.ReportMetric(median(0), "none/s")
			b.ReportMetric(median(1), "sessions/s")
			b.ReportMetric(median(2), "all/s")
			b.ReportMetric(median(1)/median(0), "sessions-ratio")
			b.ReportMetric(median(2)/median(0), "all-ratio")
			b.ReportMetric(median(2)/median(1), "all-by-sessions")
		})
	}
}
