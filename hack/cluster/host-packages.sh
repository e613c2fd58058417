#!/usr/bin/env bash
# Makes sure that programs from outside Go are there.
#
#   hack/cluster/host-packages.sh WHAT...     WHAT is one of: cc engine
#
# cc: a C compiler with static libseccomp, for runc. engine: what runs nodes
# without a registry. As root on Debian or a relative of it, what is missing is
# installed; no service is started. Anyone else is told what to install.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

packages=()
# need PACKAGE PROGRAM... wants the package if one of the programs is missing.
need() {
	local package=$1 program
	shift
	for program in "$@"; do
		have "$program" || {
			packages+=("$package")
			return 0
		}
	done
}

PATH=$PATH:/usr/sbin:/sbin
for what in "$@"; do
	case $what in
	cc)
		need gcc gcc
		[ -e /usr/include/stdlib.h ] || packages+=(libc6-dev)
		[ -e /usr/include/seccomp.h ] || packages+=(libseccomp-dev)
		;;
	engine)
		need docker.io docker dockerd containerd
		need runc runc
		need iptables iptables
		need iproute2 ip
		need util-linux nsenter unshare flock
		need debootstrap debootstrap
		need jq jq
		;;
	*) fail "host-packages.sh: unknown: $what" ;;
	esac
done
[ ${#packages[@]} -gt 0 ] || exit 0

have apt-get || fail "missing here: ${packages[*]} (Debian's names); install them with your system's package manager"
[ "$(id -u)" = 0 ] || fail "missing here: ${packages[*]}; install them with: sudo apt-get install ${packages[*]}"

# The engine that we start is our own; the package's need not run.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	# shellcheck disable=SC2317 # called when the script ends
	remove_policy() { rm -f "$policy"; }
	on_exit remove_policy
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi

install() {
	export DEBIAN_FRONTEND=noninteractive
	apt-get -o DPkg::Lock::Timeout=120 -q update
	apt-get -o DPkg::Lock::Timeout=120 -q -y --no-install-recommends install "${packages[@]}"
}
step "installing ${packages[*]}" install
