package server

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/cell/admin"
	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/channels"
	"quicproquo.dev/cell/delivery"
	"quicproquo.dev/cell/endpoint"
	"quicproquo.dev/cell/identity"
	"quicproquo.dev/cell/keys"
	"quicproquo.dev/cell/limits"
	"quicproquo.dev/cell/revocation"
	"quicproquo.dev/cell/session"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/cell/telemetry"
	"quicproquo.dev/internal/admintoken"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/internal/logging"
	"quicproquo.dev/schema/ids"
)

// Server is a running cell.
type Server struct {
	config  *Config
	log     *slog.Logger
	store   *store.Store
	policy  *policyFile
	metrics *telemetry.Metrics
	revoked *revocation.Watcher
	people  *identity.Service
	lane    *delivery.Lane
	hub     *delivery.Hub
	wakeups *delivery.Wakeups
	quic    *endpoint.QUIC
	ops     *endpoint.Ops
	cert    *endpoint.Certificate
	clients endpoint.Clients
	audit   *audit.Recorder // Nil until the log is open.

	sealing    *store.Sealing
	durability atomic.Pointer[store.Durability] // Nil until it was first checked.

	reloading                                 sync.Mutex
	policyProblem, certProblem, clientProblem problem
	certRecorded                              uint32 // The key that the audit log has.

	ready   atomic.Bool
	stop    context.CancelFunc // Ends what runs in the background.
	running sync.WaitGroup
	failed  chan error // The first thing that ended by itself.
}

// stopPatience is for what is left to do once the clients are gone.
const stopPatience = 5 * time.Second

// Release names this build in hello and logs.
type Release struct{ Name, Version string }

// Start opens everything and returns once the cell takes connections. The caller must call Stop.
func Start(ctx context.Context, c *Config, release Release, log *slog.Logger) (*Server, error) {
	s := &Server{config: c, log: log, metrics: telemetry.New(), failed: make(chan error, 4)}
	if err := s.start(ctx, release); err != nil {
		s.abandon()
		return nil, err
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, release Release) error {
	var err error
	if s.policy, err = loadPolicy(s.config.PolicyFile); err != nil {
		return err
	}
	s.clients = endpoint.Clients{Mode: s.clientCertificates, CAs: endpoint.NewClientCAs(s.config.ClientCAFile)}
	if err := s.clients.Check(s.clientCertificates()); err != nil {
		return err
	}
	cellKeys, err := cellkeys.Load(s.config.KeysFile)
	if err != nil {
		return err
	}
	if s.store, err = openStore(ctx, s.config, cellKeys); err != nil {
		return err
	}
	s.metrics.WatchDatabase(s.store.Stats)
	if err := s.store.CheckCompatible(ctx); err != nil {
		return err
	}
	if s.sealing, err = s.store.JoinSealing(ctx); err != nil {
		return err
	}
	if err := s.openAudit(ctx, cellKeys); err != nil {
		return err
	}
	if err := s.checkDurability(ctx); err != nil {
		return fmt.Errorf("checking the database's durability settings: %w", err)
	}
	if err := s.prepare(ctx, s.policy.current()); err != nil {
		return fmt.Errorf("preparing partitions: %w", err)
	}
	if err := errors.Join(s.recordKeys(ctx, keysOf(cellKeys)), s.recordPolicy(ctx, s.policy.current())); err != nil {
		return fmt.Errorf("recording what the cell starts with: %w", err)
	}
	services, err := s.services(ctx, cellKeys, release)
	if err != nil {
		return err
	}
	return s.listen(services, cellKeys)
}

// openStore connects with the keys that seal columns.
func openStore(ctx context.Context, c *Config, k *cellkeys.Keys) (*store.Store, error) {
	uri, err := c.databaseURI()
	if err != nil {
		return nil, err
	}
	sealing := make([]store.SealingKey, len(k.Sealing))
	for i, key := range k.Sealing {
		sealing[i] = store.SealingKey{ID: key.ID, Key: key.Key}
	}
	sealer, err := store.NewSealer(sealing, k.NameIndex)
	if err != nil {
		return nil, err
	}
	st, err := store.Open(ctx, store.Options{URI: uri, Sealer: sealer, Pooling: c.DatabasePooling})
	if errors.Is(err, store.ErrUnavailable) {
		return nil, fmt.Errorf("%w; check the connection string and that PostgreSQL lets this server in", err)
	}
	return st, err
}

func (s *Server) services(ctx context.Context, k *cellkeys.Keys, release Release) (*session.Services, error) {
	cell, err := s.store.Cell(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the cell's identity: %w", err)
	}
	now := time.Now
	people, err := identity.New(s.store, k, s.policy.current, now, s.log)
	if err != nil {
		return nil, err
	}
	s.people = people
	people.Audit(s.audit)
	s.revoked = revocation.New(s.store, s.log, now)
	if err := s.revoked.Load(ctx); err != nil {
		return nil, fmt.Errorf("reading what was revoked: %w", err)
	}
	packages := keys.New(s.store, s.policy.current, now)
	packages.Audit(s.audit)
	bounds := limits.New(s.policy.current, now)
	bounds.Audit(s.audit)
	s.hub = delivery.NewHub(s.store, s.metrics, s.log, now)
	s.wakeups = s.hub.UseWakeups(s.store)
	people.Connect(s.revoked, s.hub.Announce)
	s.lane = delivery.NewLane(s.store, s.metrics, s.log, now, s.hub.Announce)
	rooms := channels.New(s.store, s.policy.current, people.PrepareName, s.hub, now)
	rooms.Audit(s.audit)
	admins, err := s.admins(people, k, cell.ID)
	if err != nil {
		return nil, err
	}
	return &session.Services{
		Identity: people,
		Keys:     packages,
		Channels: rooms,
		Lane:     s.lane,
		Hub:      s.hub,
		Revoked:  s.revoked,
		Admin:    admins,
		Cell:     cell,
		Limits:   bounds,
		Logins:   session.NewLoginGate(),
		Policy:   s.policy.current,
		Metrics:  s.metrics,
		Log:      s.log,
		Now:      now,
		Server:   release.Name + " " + release.Version,
	}, nil
}

// admins answers those who run the cell.
func (s *Server) admins(people *identity.Service, k *cellkeys.Keys, cell ids.ID) (*admin.Service, error) {
	tokens, err := admintoken.New(k.Tokens)
	if err != nil {
		return nil, err
	}
	return admin.New(admin.Options{Identity: people, Log: s.store, Sink: s.audit, Tokens: tokens, Verify: s.clients.CAs.Verify,
		Policy: s.policy.current, Cell: cell, Now: time.Now, Logger: s.log}), nil
}

// listen opens both ports and starts what runs in the background.
func (s *Server) listen(services *session.Services, k *cellkeys.Keys) error {
	var err error
	if s.cert, err = endpoint.LoadCertificate(s.config.CertFile, s.config.KeyFile); err != nil {
		return err
	}
	if s.quic, err = endpoint.Listen(s.config.Listen, s.cert, s.clients, endpoint.Keys{Reset: resetKey(k), Token: tokenKey(k)}, services); err != nil {
		return err
	}
	s.ops, err = endpoint.ListenOps(s.config.OpsListen, endpoint.Probes{Ready: s.readiness, PolicyHash: s.policy.hash, Durability: s.durabilityNow, Metrics: s.metrics.Registry})
	if err != nil {
		return err
	}
	background, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.running.Go(func() { s.audit.Run(background) })
	s.running.Go(func() { s.revoked.Run(background) })
	s.running.Go(func() { s.hub.Run(background) })
	s.running.Go(func() { s.wakeups.Run(background) })
	s.running.Go(func() { s.people.RunDeletions(background) })
	s.running.Go(func() { s.housekeep(background) })
	s.running.Go(func() { s.watchDatabase(background) })
	s.running.Go(func() { s.watchDurability(background) })
	s.running.Go(func() { s.watchSealing(background) })
	s.running.Go(func() { s.watchFiles(background) })
	s.running.Go(func() { s.note(s.quic.Serve(background)) })
	s.running.Go(func() { s.note(s.ops.Serve()) })
	s.ready.Store(true)
	s.log.Info("cell is ready", "quic", logging.Own(s.quic.Addr()), "ops", logging.Own(s.ops.Addr()), "cell", services.Cell.ID, "policy", s.policy.hash())
	return nil
}

// resetKey is the same for every process of a pod, and for no two pods: behind a balancer by address, a packet that
// strays to another pod must not end its connection.
func resetKey(k *cellkeys.Keys) quic.StatelessResetKey {
	host, _ := os.Hostname() // Without a name all pods share one.
	m := hmac.New(sha256.New, k.Tokens[0].Key)
	m.Write([]byte("qpq/1 stateless reset\x00" + host))
	return quic.StatelessResetKey(m.Sum(nil))
}

// tokenKey is the same for all pods of a cell.
func tokenKey(k *cellkeys.Keys) quic.TokenGeneratorKey {
	m := hmac.New(sha256.New, k.Tokens[0].Key)
	m.Write([]byte("qpq/1 address token\x00"))
	return quic.TokenGeneratorKey(m.Sum(nil))
}

func (s *Server) note(err error) {
	if err != nil {
		s.failed <- err
	}
}

func (s *Server) readiness() error {
	if !s.ready.Load() {
		return errors.New("the cell is starting or stopping")
	}
	return nil
}

// Failed reports what ended by itself while the cell ran.
func (s *Server) Failed() <-chan error { return s.failed }

// Addr is the UDP address that is listened on.
func (s *Server) Addr() net.Addr { return s.quic.Addr() }

// OpsAddr is the TCP address of the ops port.
func (s *Server) OpsAddr() net.Addr { return s.ops.Addr() }

// Stop drains and stops: no new connections, clients are asked to leave, accepted messages are stored, cursors are
// written. During the drain the pod stays ready for the clients it has.
func (s *Server) Stop(ctx context.Context) error {
	s.log.InfoContext(ctx, "cell is draining", "patience", s.config.drain)
	s.quic.Drain(ctx, s.config.drain)
	err := s.quic.Close()
	s.ready.Store(false)
	s.lane.Close()
	s.stop()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
	defer cancel()
	err = errors.Join(err, s.ops.Close(ctx))
	s.running.Wait()
	s.closeAudit(ctx)
	s.store.Close()
	s.log.InfoContext(ctx, "cell has stopped")
	return err
}

// abandon closes what a failed start had opened.
func (s *Server) abandon() {
	if s.quic != nil {
		_ = s.quic.Close()
	}
	if s.lane != nil {
		s.lane.Close()
	}
	if s.sealing != nil {
		s.sealing.Leave(context.Background())
	}
	if s.store != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
		defer cancel()
		s.closeAudit(ctx)
		s.store.Close()
	}
}

// Migrate brings the configured database's schema up to date.
func Migrate(ctx context.Context, c *Config, log *slog.Logger) error {
	st, err := openBeside(ctx, c)
	if err != nil {
		return err
	}
	defer st.Close()
	return st.Migrate(ctx, log)
}

// openBeside opens the configured database, whatever its schema is, for a command beside the server.
func openBeside(ctx context.Context, c *Config) (*store.Store, error) {
	k, err := cellkeys.Load(c.KeysFile)
	if err != nil {
		return nil, err
	}
	return openStore(ctx, c, k)
}
