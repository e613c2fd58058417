#!/usr/bin/env bash
# Prints the path of a pinned tool, building it first if need be.
#
#   hack/tool.sh NAME       NAME as in hack/tools/go.mod: golangci-lint, controller-gen, ...
#
# Tools are kept per content of hack/tools/go.sum and per Go version, so that
# clones share them and an upgrade never meets an old one.
set -euo pipefail

cd "$(dirname "$0")/tools"

name=${1:?usage: hack/tool.sh NAME}
case $name in
capnpc-go) package=capnproto.org/go/capnp/v3/capnpc-go hint="a few seconds" ;;
controller-gen) package=sigs.k8s.io/controller-tools/cmd/controller-gen hint="about a minute" ;;
golangci-lint) package=github.com/golangci/golangci-lint/v2/cmd/golangci-lint hint="2 to 5 minutes on two cores" ;;
gotestsum) package=gotest.tools/gotestsum hint="a few seconds" ;;
gitleaks) package=github.com/zricethezav/gitleaks/v8 hint="about a minute" ;;
*)
	echo "hack/tool.sh: no such tool: $name" >&2
	exit 2
	;;
esac

key=$({ cat go.mod go.sum && go env GOVERSION GOOS GOARCH; } | sha256sum | cut -c1-16)
dir=${QPQ_TOOLS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/quicproquo/tools/$key}

if [ ! -x "$dir/$name" ]; then
	echo "building $name, once ($hint)" >&2
	mkdir -p "$dir"
	begin=$SECONDS
	temp=$(mktemp -d "$dir/.new.XXXXXX")
	trap 'rm -rf "$temp"' EXIT
	CGO_ENABLED=0 go build -v -o "$temp/$name" "$package" 2>&1 | ../progress.sh >&2
	mv "$temp/$name" "$dir/$name"
	echo "built $name in $((SECONDS - begin)) s" >&2
fi
echo "$dir/$name"
