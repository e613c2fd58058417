# What each program of the cluster is built from, and where it is kept. Sourced.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # lib.sh comes first; the variables are the answers

# What a Kubernetes API server for tests needs, the cheapest first.
envtest_programs=(etcd kube-apiserver kubectl)
# What the nodes of a cluster without a registry need besides.
node_programs=(
	"${envtest_programs[@]}"
	kube-controller-manager kube-scheduler kubelet kube-proxy kubeadm
	containerd containerd-shim-runc-v2 ctr runc
	host-local loopback portmap ptp
	coredns local-path-provisioner pause qpq-cni
)
all_programs=("${node_programs[@]}" mkimage kind)

# required MODULE_DIR MODULE is the version in MODULE_DIR/go.mod.
required() { awk -v module="$2" '$1 == module { print $2; exit } $1 == "require" && $2 == module { print $3; exit }' "$1/go.mod"; }

# recipe PROGRAM sets dir (of the Go module), package, version, cgo and the
# other flags. Never -trimpath: Go would then compile everything a second time
# that the product's own build has in common with these.
recipe() {
	local modules=$here/modules
	cgo=0 tags='' ldflags='-s -w'
	case $1 in
	etcd)
		dir=$modules/etcd package=go.etcd.io/etcd/server/v3
		version=$(required "$dir" "$package")
		;;
	kube*)
		dir=$modules/kubernetes package=k8s.io/kubernetes/cmd/$1
		version=$(required "$dir" k8s.io/kubernetes)
		ldflags+=$(kubernetes_stamp "$version")
		;;
	pause)
		# The one program that is C; its source comes with Kubernetes.
		dir=$modules/kubernetes package=k8s.io/kubernetes
		version=$(required "$dir" "$package")
		ldflags+=$(kubernetes_stamp "$version")
		;;
	containerd | containerd-shim-runc-v2 | ctr)
		local containerd=github.com/containerd/containerd/v2
		dir=$modules/containerd package=$containerd/cmd/$1
		version=$(required "$dir" $containerd)
		tags=no_btrfs,no_devmapper,no_zfs
		ldflags+=" -X $containerd/version.Version=$version"
		;;
	runc)
		dir=$modules/runc package=github.com/opencontainers/runc
		version=$(required "$dir" "$package")
		cgo=1 tags=seccomp,netgo,osusergo
		ldflags+=" -extldflags=-static -X main.version=${version#v}"
		;;
	host-local | loopback | portmap | ptp)
		local plugins=github.com/containernetworking/plugins
		dir=$modules/cni
		package=$(awk -v name="/$1" '$1 ~ name "$" { print $1; exit }' "$dir/go.mod")
		version=$(required "$dir" $plugins)
		;;
	coredns)
		dir=$modules/coredns package=.
		version=$(required "$dir" github.com/coredns/coredns)
		;;
	local-path-provisioner)
		dir=$modules/localpath package=github.com/rancher/local-path-provisioner
		version=$(required "$dir" "$package")
		ldflags+=" -X main.VERSION=$version"
		;;
	kind)
		dir=$modules/kind package=sigs.k8s.io/kind
		version=$(required "$dir" "$package")
		;;
	mkimage) dir=$here/mkimage package=. version=v1 ;;
	qpq-cni) dir=$here/cni package=. version=v1 ;;
	*) fail "no such program: $1" ;;
	esac
}

# kubeadm and the API server judge one another by these.
kubernetes_stamp() { # VERSION
	local at=k8s.io/component-base/version minor
	minor=${1#v*.}
	printf -- ' -X %s=%s' "$at.gitVersion" "$1" "$at.gitMajor" 1 "$at.gitMinor" "${minor%%.*}" \
		"$at.gitTreeState" clean "$at.gitCommit" 0000000000000000000000000000000000000000 \
		"$at.buildDate" 2026-01-01T00:00:00Z
}

# place PROGRAM sets path to where the program is kept, by what it is made of.
# Needs recipe's answers.
go_identity=
place() {
	[ -n "$go_identity" ] || go_identity=$(go env GOVERSION GOOS GOARCH)
	local key
	key=$({
		echo "$go_identity" "$cgo" "$tags" "$ldflags"
		find "$dir" -maxdepth 1 \( -name go.mod -o -name go.sum -o -name '*.go' ! -name '*_test.go' \) | sort | xargs cat
	} | short_hash)
	path=$cache/$(basename "$dir")/$version-$key/bin/$1
}

# program NAME prints the path of a program that has been built.
program() {
	local dir package version cgo tags ldflags path
	recipe "$1"
	place "$1"
	printf '%s\n' "$path"
}
