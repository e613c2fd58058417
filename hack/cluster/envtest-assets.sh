#!/usr/bin/env bash
# Makes sure that etcd, kube-apiserver and kubectl are there, for tests against
# a real API server, and prints their directory: what KUBEBUILDER_ASSETS wants.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$here/programs.sh"

ask "$here/assets.sh" "${envtest_programs[@]}"
paths=$answer
dir=$cache/envtest/$(short_hash <<<"$paths")
mkdir -p "$dir"
while IFS= read -r path; do
	link=$dir/$(basename "$path")
	[ -e "$link" ] || ln -sfn "$path" "$link"
done <<<"$paths"
echo "$dir"
