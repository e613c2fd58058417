#!/usr/bin/env bash
# Regenerates committed code and manifests.
#
#   hack/generate.sh schema       schema/*.capnp.go from the Cap'n Proto schema
#   hack/generate.sh deepcopy     zz_generated.deepcopy.go of the Kubernetes types
#   hack/generate.sh crd          config/crd from the Kubernetes types
#   hack/generate.sh role         config/rbac/cells/role.yaml from the reconciler's markers
set -euo pipefail

cd "$(dirname "$0")/.."

schema() {
	hack/install-deps.sh capnp
	local plugin std
	plugin=$(hack/tool.sh capnpc-go)
	# go.capnp, with the annotations for Go, comes with the library that the
	# generated code is compiled against.
	go mod download capnproto.org/go/capnp/v3
	std=$(go list -m -f '{{.Dir}}' capnproto.org/go/capnp/v3)/std
	# From there, since the generated code holds the names of its sources.
	(cd schema && capnp compile -I"$std" -o"$plugin":. ./*.capnp)
}

deepcopy() {
	"$(hack/tool.sh controller-gen)" object:headerFile=hack/boilerplate.go.txt paths=./api/...
}

crd() {
	"$(hack/tool.sh controller-gen)" crd paths=./api/... output:crd:dir=config/crd
}

role() {
	"$(hack/tool.sh controller-gen)" rbac:roleName=operator paths=./controllers/... output:rbac:dir=config/rbac/cells
}

for what in "$@"; do
	echo "generating $what"
	"$what"
done
