#!/usr/bin/env bash
# Makes the Debian system that nodes run, once, and prints the path of its tar.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

suite=bookworm
# What kind's own base image has, without the clients of network storage, and
# busybox for the helper of the storage provisioner.
packages=systemd,systemd-sysv,dbus,conntrack,iptables,nftables,iproute2,ethtool,util-linux,mount,kmod
packages+=,libseccomp2,e2fsprogs,bash,ca-certificates,curl,jq,procps,socat,pigz,busybox-static

# Mounts and processes of the installation end with it, in whatever way.
bootstrap() {
	PATH=$PATH:/usr/sbin:/sbin unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
		nice -n 19 debootstrap --variant=minbase --include="$packages" "$suite" "$1" ${QPQ_DEBIAN_MIRROR:+"$QPQ_DEBIAN_MIRROR"}
	rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/* "$1"/usr/share/{doc,man,locale}/*
	tar -C "$1" --numeric-owner -cf "$1.tar" .
}

tar=$cache/node-root/$suite-$({ echo "$suite $packages" && declare -f bootstrap; } | short_hash).tar
if [ ! -e "$tar" ]; then
	ask "$here/host-packages.sh" engine
	lock node-root
	if [ ! -e "$tar" ]; then
		scratch
		step "installing a small Debian for the nodes, once (1 to 4 minutes)" bootstrap "$scratch/root"
		mkdir -p "$(dirname "$tar")"
		mv "$scratch/root.tar" "$tar"
	fi
fi
echo "$tar"
