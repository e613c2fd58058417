#!/usr/bin/env bash
# Fails with the difference if what is committed is not what is generated.
# Run after `make generate manifests`.
set -euo pipefail

cd "$(dirname "$0")/.."

generated=('schema/*.capnp.go' 'api/*/zz_generated.*.go' 'config/crd/messaging.quicproquo.dev_*.yaml' 'config/rbac/cells/role.yaml')

changed() { git status --porcelain --untracked-files=all -- "${generated[@]}"; }

if [ -z "$(changed)" ]; then
	echo "generated files are up to date"
	exit 0
fi
{
	echo "generated files differ from the committed ones:"
	changed
	# Schema constants run to thousands of lines that nobody reads.
	git --no-pager diff HEAD -- "${generated[@]}" | head -n 200 || true
	echo "run make generate manifests, and commit the result"
} >&2
exit 1
