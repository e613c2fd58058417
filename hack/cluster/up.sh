#!/usr/bin/env bash
# Brings up a local Kubernetes cluster, or makes sure of the one that runs.
#
#   CLUSTER_NODES=N   one control plane, and N-1 workers; default 1
#   CLUSTER_WAY=WAY   docker: nodes in the Docker of this machine, of kind's own
#                     image. offline: an engine and a node image of our own, from
#                     Go modules and Debian packages; needs root. Default: docker
#                     if it answers and the image can be had, else offline.
#   CLUSTER_NODE_IMAGE=IMAGE   for the first way, from a mirror for example
#
# A healthy cluster of that shape is used as it is, any other is replaced. If
# this fails or is interrupted, nothing is left of the cluster.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$here/programs.sh"
. "$here/engine.sh"
. "$here/state.sh"

wanted_nodes=${CLUSTER_NODES:-}
wanted_way=${CLUSTER_WAY:-auto}
case $wanted_nodes in '' | [1-9]) ;; *) fail "CLUSTER_NODES is '$wanted_nodes'; want 1 to 9" ;; esac
case $wanted_way in auto | docker | offline) ;; *) fail "CLUSTER_WAY is '$wanted_way'; want docker or offline" ;; esac

# ordinary_image is the image, by digest, that our version of kind was made
# for.
ordinary_image() {
	local source
	source=$(cd "$here/modules/kind" && GOWORK=off go mod download && GOWORK=off go list -m -f '{{.Dir}}' sigs.k8s.io/kind)
	sed -n 's/^const Image = "\(.*\)"$/\1/p' "$source/pkg/apis/config/defaults/image.go"
}

image_can_be_had() {
	docker image inspect "$1" >/dev/null 2>&1 || timeout 60 docker manifest inspect "$1" >/dev/null 2>&1
}

# choose_way sets way, and image for the ordinary one.
choose_way() {
	way=offline
	[ "$wanted_way" != offline ] || return 0
	image=${CLUSTER_NODE_IMAGE:-$(ordinary_image)}
	if ! docker_answers; then
		[ "$wanted_way" = auto ] || fail "Docker does not answer: docker version"
		say "no Docker answers here; the cluster gets an engine of its own"
	elif ! image_can_be_had "$image"; then
		[ "$wanted_way" = auto ] || fail "Docker cannot get $image"
		say "Docker answers, but cannot get $image; the cluster gets an engine and an image of its own"
	else
		way=docker
	fi
}

config() {
	local n
	cat <<-EOF
		kind: Cluster
		apiVersion: kind.x-k8s.io/v1alpha4
		networking:
		  podSubnet: 10.244.0.0/16
		  serviceSubnet: 10.96.0.0/16
		kubeadmConfigPatches:
		- |
		  kind: KubeletConfiguration
		  # Some machines still have the first version of control groups.
		  failCgroupV1: false
		nodes:
		- role: control-plane
	EOF
	for ((n = 1; n < nodes; n++)); do echo "- role: worker"; done
}

# nodes_say shows why nodes did not come up, while they are still there.
nodes_say() {
	local node unit
	mkdir -p "$state/logs"
	for node in $(kind get nodes --name "$cluster" 2>/dev/null); do
		for unit in kubelet containerd; do
			timeout 30 docker exec "$node" journalctl --no-pager -u "$unit" >"$state/logs/$node.$unit.log" 2>&1 || continue
		done
		timeout 30 docker logs "$node" >"$state/logs/$node.log" 2>&1 || true
	done
	say "logs of the nodes are in $state/logs"
}

create() {
	local config
	scratch
	config=$scratch/kind.yaml
	config >"$config"
	step "creating $nodes node(s) with kind (about a minute)" \
		"${inside[@]}" kind create cluster --name "$cluster" --config "$config" --image "$image" \
		--kubeconfig "$kubeconfig" --wait 240s --retain
}

wait_until_ready() {
	local kubectl=("${inside[@]}" kubectl --kubeconfig "$kubeconfig")
	"${kubectl[@]}" wait --for=condition=Ready node --all --timeout=120s
	"${kubectl[@]}" -n kube-system rollout status deployment/coredns --timeout=180s
	"${kubectl[@]}" -n local-path-storage rollout status deployment/local-path-provisioner --timeout=180s
}

# prepare gets what nodes are made of, so that what follows is quick.
prepare() {
	local paths
	if [ "$way" = docker ]; then
		docker image inspect "$image" >/dev/null 2>&1 || step "pulling $image" docker pull "$image"
		ask "$here/assets.sh" kubectl kind
		paths=$answer
		inside=()
	else
		[ "$(id -u)" = 0 ] || fail "without Docker and a registry this needs root: sudo -E make cluster-up"
		ask "$here/host-packages.sh" engine
		ask "$here/assets.sh" "${all_programs[@]}"
		paths=$answer
		ask "$here/node-root.sh"
		step "starting a Docker engine in a network namespace of its own" start_engine
		export_docker
		ask "$here/node-image.sh"
		image=$answer
		inside=(nsenter --net="$netns")
	fi
	tools=$(grep -E '/(kubectl|kind)$' <<<"$paths" | xargs -n 1 dirname | paste -sd:)
	export PATH=$tools:$PATH
}

# shellcheck disable=SC2317 # called when the script ends
clean_up() {
	[ "$1" != 0 ] || return 0
	say "not up; cleaning up"
	end_children
	[ -z "$created" ] || [ "$1" -ge 128 ] || nodes_say
	unset DOCKER_HOST
	if [ "$docker_host" != - ]; then export DOCKER_HOST=$docker_host; fi
	take_down || say "cleaning up failed; run make cluster-down"
}

began=$SECONDS
mkdir -p "$state"
lock cluster
if read_state; then
	if [ "$nodes" = "${wanted_nodes:-$nodes}" ] && { [ "$wanted_way" = auto ] || [ "$way" = "$wanted_way" ]; } && healthy; then
		say "up already: $nodes node(s), KUBECONFIG=$kubeconfig"
		exit 0
	fi
	say "the cluster that is there is not healthy, or not what is wanted: replacing it"
fi
created=
docker_host=${DOCKER_HOST--}
take_down
nodes=${wanted_nodes:-1}
choose_way
on_exit clean_up
prepare
created=yes
create
step "waiting for the cluster's own services" wait_until_ready
write_state
say "up in $((SECONDS - began)) s: $nodes node(s), KUBECONFIG=$kubeconfig"
say "run commands in its network with: hack/cluster/in-cluster kubectl get pods -A"
