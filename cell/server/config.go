// Package server puts a cell together and runs it: start, ready, drain, stop. It knows every other package of the
// cell, and none of them knows it.
package server

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/internal/logging"
)

// Version is the version of the configuration file.
const Version = "quicproquo.dev/cell/v1"

// Config is the file that `cell serve --config FILE` reads. It names where things are; secrets stand in the files it
// names, and what an admin tunes stands in the policy file.
type Config struct {
	Version string `json:"version"`
	// Listen is the UDP address of the QUIC endpoint. Default ":4201".
	Listen string `json:"listen,omitempty"`
	// OpsListen is the TCP address of liveness, readiness and metrics. Default ":8080".
	OpsListen string `json:"opsListen,omitempty"`
	// DatabaseURIFile holds a PostgreSQL connection string. The environment variable QPQ_DATABASE_URI takes precedence.
	DatabaseURIFile string `json:"databaseURIFile,omitempty"`
	// DatabasePooling says what pools connections to the database: session (default; also for none) or transaction. Behind
	// a pooler in transaction mode, nothing is kept in a session, and replicas hear of each other's messages by polling.
	DatabasePooling store.Pooling `json:"databasePooling,omitempty"`
	// KeysFile holds the cell's own keys.
	KeysFile string `json:"keysFile"`
	// PolicyFile is read anew when it changes.
	PolicyFile string `json:"policyFile"`
	// CertFile is the certificate's PEM chain with the CA's appended; KeyFile its key.
	CertFile string `json:"certFile"`
	KeyFile  string `json:"keyFile"`
	// ClientCAFile holds, in PEM, the CAs that issue client certificates. It is needed, and read, where the policy's
	// access.clientCertificates asks for these.
	ClientCAFile string `json:"clientCAFile,omitempty"`
	// DrainTimeout is how long clients get to leave at SIGTERM, as a Go duration. Default "10s".
	DrainTimeout string `json:"drainTimeout,omitempty"`
	// LogLevel is debug, info, warn or error. Default info.
	LogLevel string `json:"logLevel,omitempty"`

	drain    time.Duration
	database logging.Secret // Taken from the environment.
}

const defaultDrain = 10 * time.Second

// LoadConfig reads and checks a configuration file.
func LoadConfig(path string) (*Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	var c Config
	if err := yaml.UnmarshalStrict(b, &c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c.database = logging.NewSecret(takeSecret(databaseVariable))
	return &c, nil
}

const databaseVariable = "QPQ_DATABASE_URI"

// takeSecret reads a secret from the environment and takes it out, so that what this process starts, and who looks at
// its environment later, does not find it there. (What the system itself remembers of how a process was started stays.)
func takeSecret(variable string) string {
	value := os.Getenv(variable)
	if value != "" {
		_ = os.Unsetenv(variable) // It fails for names that are none.
	}
	return value
}

// check fills in defaults and reports everything that is wrong.
func (c *Config) check() error {
	var errs []error
	if c.Version != Version {
		errs = append(errs, fmt.Errorf("version: write %q", Version))
	}
	for _, f := range []struct{ name, value string }{{"keysFile", c.KeysFile}, {"policyFile", c.PolicyFile}, {"certFile", c.CertFile}, {"keyFile", c.KeyFile}} {
		if f.value == "" {
			errs = append(errs, fmt.Errorf("%s: write the path of a file", f.name))
		}
	}
	c.Listen, c.OpsListen = or(c.Listen, ":4201"), or(c.OpsListen, ":8080")
	c.drain = defaultDrain
	if c.DrainTimeout != "" {
		d, err := time.ParseDuration(c.DrainTimeout)
		if err != nil || d < 0 {
			errs = append(errs, errors.New(`drainTimeout: write a duration such as "10s"`))
		}
		c.drain = d
	}
	if _, err := c.level(); err != nil {
		errs = append(errs, err)
	}
	if p := c.DatabasePooling; p != "" && p != store.PoolingSession && p != store.PoolingTransaction {
		errs = append(errs, fmt.Errorf("databasePooling: write %s or %s", store.PoolingSession, store.PoolingTransaction))
	}
	return errors.Join(errs...)
}

// level is LogLevel as log/slog has it.
func (c *Config) level() (slog.Level, error) {
	switch c.LogLevel {
	case "debug":
		return slog.LevelDebug, nil
	case "", "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, errors.New("logLevel: write debug, info, warn or error")
}

// Logger writes what LogLevel asks for to w, one JSON object a line.
func (c *Config) Logger(w io.Writer) *slog.Logger {
	level, _ := c.level() // LoadConfig has checked it.
	return logging.New(w, logging.Options{Level: level})
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// databaseURI finds the connection string, which is a secret and never a flag.
func (c *Config) databaseURI() (string, error) {
	if uri := c.database.Reveal(); uri != "" {
		return uri, nil
	}
	if c.DatabaseURIFile == "" {
		return "", errors.New("no database: set databaseURIFile in the configuration, or QPQ_DATABASE_URI")
	}
	b, err := os.ReadFile(c.DatabaseURIFile)
	if err != nil {
		return "", fmt.Errorf("reading the database's connection string: %w", err)
	}
	uri := strings.TrimSpace(string(b))
	if uri == "" {
		return "", fmt.Errorf("%s is empty: write a PostgreSQL connection string into it, such as postgres://USER:PASSWORD@HOST/DATABASE", c.DatabaseURIFile)
	}
	return uri, nil
}
