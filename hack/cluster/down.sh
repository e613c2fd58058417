#!/usr/bin/env bash
# Removes the local cluster: its nodes, their engine if it is ours, processes,
# mounts, the network namespace and control groups, and puts kernel settings
# back. Says so, or says what is still there and fails. The cache stays.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$here/engine.sh"
. "$here/state.sh"

began=$SECONDS
mkdir -p "$state"
lock cluster
if [ ! -e "$state/up" ] && [ -z "$(engine_traces)" ] && [ -z "$(ordinary_nodes)" ]; then
	say "no cluster is here"
	exit 0
fi
take_down
left=$(engine_traces)$(ordinary_nodes)
[ -z "$left" ] || fail "still there: $left"
say "down in $((SECONDS - began)) s: nothing of it is left but the cache (no process, mount, network namespace or control group)"
