#!/usr/bin/env bash
# Builds the programs of the local cluster from their Go modules, each once per
# version, and prints their paths.
#
#   hack/cluster/assets.sh [PROGRAM...]     default: all; see programs.sh
#
# An interrupted build goes on where it was: Go keeps what it has compiled, and
# a program appears in the cache only when it is whole.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$here/programs.sh"

go_build() { # OUTPUT; the rest as recipe set it
	cd "$dir"
	GOWORK=off CGO_ENABLED=$cgo nice -n 19 go build -v -buildvcs=false -tags "$tags" -ldflags "$ldflags" -o "$1" "$package"
}

# pause, what holds a pod's namespaces open, is one C file.
c_build() {
	local source
	source=$(cd "$dir" && GOWORK=off go mod download && GOWORK=off go list -m -f '{{.Dir}}' "$package")
	gcc -Os -static -s -DVERSION="${version#v}" -o "$1" "$source/build/pause/linux/pause.c"
}

hint() {
	case $1 in
	kube-apiserver) echo " (alone it takes 5 to 10 minutes on two cores)" ;;
	kubelet | kube-controller-manager | containerd) echo " (1 to 3 minutes)" ;;
	esac
}

build() { # PROGRAM LABEL
	local how=go_build
	[ "$1" != pause ] || how=c_build
	scratch
	step "$2" "$how" "$scratch/$1"
	mkdir -p "$(dirname "$path")"
	mv "$scratch/$1" "$path"
}

[ $# -gt 0 ] || set -- "${all_programs[@]}"

missing=() paths=()
for name in "$@"; do
	recipe "$name"
	place "$name"
	paths+=("$path")
	[ -x "$path" ] || missing+=("$name")
done

if [ ${#missing[@]} -gt 0 ]; then
	say "to build, once: ${missing[*]}"
	case " ${missing[*]} " in
	*' runc '* | *' pause '*) ask "$here/host-packages.sh" cc ;;
	esac
	# One build at a time is as fast, and what two builds share is compiled once.
	lock build
	began=$SECONDS number=0
	for name in "${missing[@]}"; do
		number=$((number + 1))
		recipe "$name"
		place "$name"
		[ ! -x "$path" ] || continue # whoever held the lock built it
		build "$name" "[$number/${#missing[@]}] building $name $version$(hint "$name")"
	done
	say "built ${#missing[@]} programs in $((SECONDS - began)) s"
fi

printf '%s\n' "${paths[@]}"
