#!/usr/bin/env bash
# Style and correctness checks that need no running program.
set -euo pipefail

cd "$(dirname "$0")/.."

failed=

step() { echo "lint: $1"; }

step "gofmt"
unformatted=$(find . -name '*.go' -not -path './bin/*' -print0 | xargs -0 gofmt -l)
if [ -n "$unformatted" ]; then
	printf 'not formatted (run gofmt -w on it): %s\n' $unformatted >&2
	failed=yes
fi

# Modules that only wrap another project's programs have nothing to tidy but
# that project, at length.
mapfile -t modules < <(find . -name go.mod -not -path './bin/*' -not -path './hack/cluster/modules/*' | sort)
for mod in "${modules[@]}"; do
	dir=$(dirname "$mod")
	step "go mod tidy ($mod)"
	if ! (cd "$dir" && go mod tidy -diff); then
		echo "$mod is not tidy: run go mod tidy in $dir" >&2
		failed=yes
	fi
done

step "go vet (compiles everything; minutes on a cold cache)"
go vet ./... || failed=yes

linter=$(hack/tool.sh golangci-lint)
step "golangci-lint"
"$linter" config verify
"$linter" run --allow-parallel-runners --timeout 15m || failed=yes
for mod in "${modules[@]}"; do
	dir=$(dirname "$mod")
	case $dir in . | ./hack/tools) continue ;; esac # done above; has no source
	step "golangci-lint ($dir)"
	(cd "$dir" && GOWORK=off "$linter" run --allow-parallel-runners --timeout 15m --config "$OLDPWD/.golangci.yml") || failed=yes
done

if [ -n "$failed" ]; then
	echo "lint: failed, see above" >&2
	exit 1
fi
echo "lint: ok"
