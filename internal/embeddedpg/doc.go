//go:build unix

// Package embeddedpg runs a private PostgreSQL server as a child process, for
// development without a cluster and for tests.
//
// # Layout
//
// Everything lives in [Options.Dir]:
//
//	lock          held (flock) for as long as a Server uses the directory
//	password      the superuser's generated password, mode 0600
//	postgres.log  what initdb and the server printed
//	data/         the PostgreSQL data directory
//
// # Running as root
//
// PostgreSQL refuses to run as root, so a root caller drops privileges for the
// children: to the owner of an existing data directory, else to the user
// "postgres", else to "nobody". That user may be unable to walk the path to
// the data directory (think of /root, mode 0700). Therefore the parent opens
// the directory and hands the descriptor down; the child reaches it as
// /proc/self/fd/3, which needs no permission on the parents. (A working
// directory plus "-D ." does not do: PostgreSQL 15 and older change the
// working directory back and forth by path while they look for themselves.)
// The program files must be reachable by path; binaries fetched by root
// therefore go to /var/cache/quicproquo, which everyone may read and only root
// may write, instead of to root's own home.
//
// # Life time
//
// The server listens on 127.0.0.1 only, has no Unix socket, and does not
// outlive its parent: on Linux the kernel sends it a fast-shutdown request
// when the parent dies, however that happens.
package embeddedpg
