#!/bin/sh
# Starts the PostgreSQL of a messaging cell, and makes its data directory first
# if there is none. Arguments are options of the server, such as
# -c shared_buffers=256MB.
#
#   POSTGRES_USER            role of the cell (default quicproquo)
#   POSTGRES_DB              its database (default: named as the role)
#   POSTGRES_PASSWORD_FILE   file with its password, or
#   POSTGRES_PASSWORD        the password
#   PGDATA                   data directory, made below a mounted volume
#
# The role owns its database and is no superuser. The superuser is postgres, who
# gets in from inside the container only: kubectl exec POD -- psql -U postgres.
# The password is set at each start, so that a new one takes a restart.
#
# SIGTERM and SIGINT disconnect clients and stop in good order.
set -eu
umask 077

bin=/usr/lib/postgresql/15/bin
major=15
data=${PGDATA:-/var/lib/postgresql/data/pgdata}
volume=${data%/*}
user=${POSTGRES_USER:-quicproquo}
database=${POSTGRES_DB:-$user}

say() { printf 'entrypoint: %s\n' "$*" >&2; }
fail() {
	say "$*"
	exit 1
}

# Until the server runs there is nothing to stop in good order: what an
# interrupted first start leaves is made anew.
trap 'exit 143' TERM
trap 'exit 130' INT

read_password() {
	if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
		[ -r "$POSTGRES_PASSWORD_FILE" ] || fail "cannot read POSTGRES_PASSWORD_FILE, $POSTGRES_PASSWORD_FILE: mount a file there that user $(id -u) may read"
		POSTGRES_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
	fi
	password=${POSTGRES_PASSWORD:-}
	unset POSTGRES_PASSWORD
	[ -n "$password" ] || fail "there is no password: set POSTGRES_PASSWORD_FILE to a file that holds it"
	case $password in *"
"*) fail "the password has several lines: write one" ;; esac
}

check_account() {
	[ "$(id -u)" != 0 ] || fail "PostgreSQL does not run as root: set runAsUser: 65532"
	[ "$(id -un 2>/dev/null)" = postgres ] || fail "user $(id -u) has no name in this image: set runAsUser: 65532"
}

check_volume() {
	mkdir -p "$volume" 2>/dev/null || fail "cannot make $volume: mount a volume there"
	[ -w "$volume" ] || fail "cannot write to $volume: set fsGroup: 65532 so that the volume is ours"
}

# Two servers on one volume would destroy its data, and a lock on a process id
# does not hold between containers. This one does, and ends with the last
# process that has it.
lock_volume() {
	exec 9>"$volume/.lock"
	flock -n 9 && return
	say "another PostgreSQL still works on $volume; waiting for it to stop"
	flock -w 60 9 || fail "another PostgreSQL works on $volume: stop it first"
}

check_version() {
	if [ ! -e "$data" ]; then return; fi
	[ -s "$data/PG_VERSION" ] || fail "$data is there but holds no data of PostgreSQL: point PGDATA elsewhere, or remove it"
	found=$(cat "$data/PG_VERSION")
	[ "$found" = "$major" ] || fail "$data was made by PostgreSQL $found and this is PostgreSQL $major, which cannot read it: run an image with PostgreSQL $found, or restore a backup into a new volume"
}

# identifier and literal quote for SQL.
identifier() { printf '"%s"' "$(printf '%s' "$1" | sed 's/"/""/g')"; }
literal() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/''/g")"; }

# alone runs the SQL on standard input, a statement a line, with a server that
# nobody else can reach. A failing statement is not shown, for it may hold a
# password.
alone() {
	"$bin/postgres" --single -D "$1" -c exit_on_error=on -c log_min_error_statement=panic -c log_statement=none \
		-c password_encryption=scram-sha-256 -c jit=off postgres >/dev/null
}

# create makes the data directory under a passing name, so that whatever
# interrupts it leaves nothing half made.
create() {
	say "making a new data directory, $data"
	rm -rf "$data.new"
	# The order of texts does not depend on the system's locales, whose changes
	# would break indexes.
	"$bin/initdb" --pgdata="$data.new" --username=postgres --auth-local=peer --auth-host=scram-sha-256 \
		--encoding=UTF8 --locale=C --data-checksums --no-instructions >&2
	if [ "$user" != postgres ]; then echo "CREATE ROLE $(identifier "$user") LOGIN" | alone "$data.new"; fi
	if [ "$database" != postgres ]; then
		echo "CREATE DATABASE $(identifier "$database") OWNER $(identifier "$user")" | alone "$data.new"
	fi
	sync
	mv "$data.new" "$data"
	sync
}

check_account
read_password
check_volume
lock_volume
check_version
[ -e "$data" ] || create
# A volume whose group was changed for us may have been opened to that group,
# which PostgreSQL does not accept.
chmod 0700 "$data"
# The lock tells that no server runs here; this file may name a process id that
# is another's now.
rm -f "$data/postmaster.pid"
echo "ALTER ROLE $(identifier "$user") PASSWORD $(literal "$password")" | alone "$data" ||
	fail "cannot set the password of the role $user; see above"
unset password

# What stands behind the given options cannot be changed by them: what was
# acknowledged must survive a crash.
"$bin/postgres" -D "$data" \
	-c jit=off -c max_parallel_workers_per_gather=0 -c max_parallel_maintenance_workers=0 \
	-c timezone=UTC -c log_timezone=UTC -c log_line_prefix='%m [%p] %q%u@%d ' \
	"$@" \
	-c fsync=on -c full_page_writes=on -c synchronous_commit=on \
	-c password_encryption=scram-sha-256 -c hba_file=/etc/postgresql/pg_hba.conf \
	-c listen_addresses='*' -c port=5432 -c unix_socket_directories=/run/postgresql -c logging_collector=off &
server=$!
# For PostgreSQL SIGINT is the fast shutdown; its SIGTERM waits for all clients
# to leave by themselves.
trap 'kill -INT "$server"' TERM INT
trap 'kill -QUIT "$server"' QUIT
# A signal interrupts wait; the server is then still there.
code=0
while wait "$server" && code=0 || code=$?; do
	kill -0 "$server" 2>/dev/null || break
done
exit "$code"
