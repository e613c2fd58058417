#!/usr/bin/env bash
# Every test but the cluster's, with a real PostgreSQL that the tests start
# themselves.
#
# The race detector watches all packages except those that pull in the
# Kubernetes API server's libraries: these are single-threaded and would take
# longer to compile than all other tests to run.
set -euo pipefail

cd "$(dirname "$0")/.."

hack/install-deps.sh cc postgres
# Tests behind a transaction pooler say that they did not run without it.
hack/install-deps.sh pgbouncer || echo "test: going on without PgBouncer"
# Before the tests' own deadline begins: the first build takes many minutes.
hack/cluster/envtest-assets.sh >/dev/null

heavy=' k8s.io/apiserver/'
raced=() plain=()
while read -r package deps; do
	case " $deps" in
	*"$heavy"*) plain+=("${package%.test}") ;;
	*) raced+=("${package%.test}") ;;
	esac
done < <(go list -test -f '{{.ImportPath}} {{join .Deps " "}}' ./... | grep -E '^[^ ]+\.test ')

failed=
run() { # LABEL FLAGS... PACKAGES...
	echo "test: $1"
	shift
	hack/gotest.sh "$@" || failed=yes
}
[ ${#raced[@]} = 0 ] || CGO_ENABLED=1 run "${#raced[@]} packages under the race detector" -race "${raced[@]}"
[ ${#plain[@]} = 0 ] || run "${#plain[@]} packages without it" "${plain[@]}"

test/interop/run || failed=yes
echo "test: the benchmark's own parts; test/load/run runs it"
(cd test/load && GOWORK=off ../../hack/gotest.sh ./...) || failed=yes
test/history/run || failed=yes

if [ -n "$failed" ]; then
	echo "test: failed, see above" >&2
	exit 1
fi
echo "test: ok"
