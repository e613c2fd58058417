// Package ours is a cell under test: the program that pods run, over the PostgreSQL that `kubectl-qpq dev` starts.
package ours

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/client/conn"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/internal/embeddedpg"
	"quicproquo.dev/internal/pki"
	"quicproquo.dev/test/load/peer"
)

// Options say what to run.
type Options struct {
	Name     string
	Program  string // cell.
	Dir      string // For everything; there must be nothing in it.
	CA       *pki.CA
	Settings map[string]string // Of PostgreSQL, besides those of every embedded one.
}

// System is a running cell with its PostgreSQL.
type System struct {
	name     string
	postgres *embeddedpg.Server
	server   *peer.Server
	addr     string
	tls      *tls.Config
}

const stopPatience = 30 * time.Second

// Start starts PostgreSQL and the cell.
func Start(ctx context.Context, o Options) (*System, error) {
	pg, err := embeddedpg.Start(ctx, embeddedpg.Options{Dir: filepath.Join(o.Dir, "postgres"), Settings: o.Settings})
	if err != nil {
		return nil, err
	}
	s := &System{name: o.Name, postgres: pg}
	if err := s.start(ctx, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *System) start(ctx context.Context, o Options) error {
	roots := x509.NewCertPool()
	roots.AddCert(o.CA.Certificate())
	s.tls = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, ServerName: "127.0.0.1", NextProtos: []string{conn.ALPN}}
	config, err := s.writeFiles(o)
	if err != nil {
		return err
	}
	migrate := exec.CommandContext(ctx, o.Program, "migrate", "--config", config) //nolint:gosec // The program under test.
	if out, err := migrate.CombinedOutput(); err != nil {
		return fmt.Errorf("migrating: %w: %s", err, out)
	}
	s.server, err = peer.StartServer(ctx, filepath.Join(o.Dir, "log"), s.isReady, o.Program, "serve", "--config", config)
	return err
}

const configuration = `version: quicproquo.dev/cell/v1
listen: 127.0.0.1:0
opsListen: 127.0.0.1:0
databaseURIFile: %q
keysFile: %q
policyFile: %q
certFile: %q
keyFile: %q
drainTimeout: 1s
`

func (s *System) writeFiles(o Options) (config string, err error) {
	in := func(name string) string { return filepath.Join(o.Dir, name) }
	cert, key, err := o.CA.IssueServer([]string{"127.0.0.1"}, time.Now(), 24*time.Hour)
	if err != nil {
		return "", err
	}
	keys, err := cellkeys.Generate().Marshal()
	if err != nil {
		return "", err
	}
	rules, err := unlimited().Marshal()
	if err != nil {
		return "", err
	}
	c := fmt.Appendf(nil, configuration, in("database-uri"), in("keys.yaml"), in("policy.yaml"), in("tls.crt"), in("tls.key"))
	for name, content := range map[string][]byte{"tls.crt": cert, "tls.key": key, "keys.yaml": keys, "policy.yaml": rules,
		"cell.yaml": c, "database-uri": []byte(s.postgres.URL())} {
		if err := os.WriteFile(in(name), content, 0o600); err != nil {
			return "", err
		}
	}
	return in("cell.yaml"), nil
}

// unlimited is the default policy but for its rates, which one machine that plays everybody would exceed.
func unlimited() *policy.Policy {
	p := policy.Default()
	l := &p.Limits
	l.RequestsPerSecond, l.RequestBurst, l.LookupsPerMinute = 100_000, 200_000, 600_000
	l.TrustedRanges = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	return p
}

// isReady finds the address in the line that the cell logs when it serves.
func (s *System) isReady(line []byte) bool {
	var l struct {
		Message string `json:"msg"`
		QUIC    string `json:"quic"`
	}
	if json.Unmarshal(line, &l) != nil || l.Message != "cell is ready" {
		return false
	}
	s.addr = l.QUIC
	return true
}

// Name implements peer.System.
func (s *System) Name() string { return s.name }

// Processes implements peer.System: the cell and PostgreSQL's postmaster.
func (s *System) Processes() []int { return []int{s.server.PID(), s.postgres.PID()} }

// countersSQL adds up what messages have on disk, tables and indexes apart from the log: partitions of messages and of
// delivery ids, and what moves with each message.
const countersSQL = `SELECT (SELECT wal_sync + 0.0 FROM pg_stat_wal), pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8,
	(SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::float8 FROM pg_class c WHERE c.relkind = 'r' AND c.relname ~ '^(messages|delivery_ids|channels|cursors)')`

// Counters implements peer.System.
func (s *System) Counters(ctx context.Context) (peer.Counters, error) {
	var c peer.Counters
	db, err := s.Database(ctx)
	if err != nil {
		return c, err
	}
	defer db.Close(ctx)
	err = db.QueryRow(ctx, countersSQL).Scan(&c.Syncs, &c.WALBytes, &c.Stored)
	return c, err
}

// Database connects to the cell's database.
func (s *System) Database(ctx context.Context) (*pgx.Conn, error) {
	return pgx.Connect(ctx, s.postgres.URL())
}

// Close implements peer.System.
func (s *System) Close() error {
	var err error
	if s.server != nil {
		err = s.server.Stop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	return errors.Join(err, s.postgres.Stop(ctx))
}
