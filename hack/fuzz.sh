#!/usr/bin/env bash
# Runs every fuzz target of the source for a short time each.
#
#   FUZZTIME=10s hack/fuzz.sh [PACKAGE_DIR...]
#
# FUZZTIME is the time per target in seconds. FUZZBUDGET bounds the whole,
# compiling included; targets are then taken in random order, so that over
# several runs each has its turn, and those left out are named.
set -euo pipefail

cd "$(dirname "$0")/.."

each=${FUZZTIME:-10s}
each=${each%s}
budget=${FUZZBUDGET:-0}
least=2 # seconds; less is not worth the start

mapfile -t targets < <(
	grep -rEo --include='*_test.go' --exclude-dir=bin '^func Fuzz[A-Za-z0-9_]+\(' "${@:-.}" |
		sed -E 's|^(.*)/[^/]+:func (Fuzz[A-Za-z0-9_]+)\($|\1 \2|' | sort -u | shuf
)
echo "fuzz: ${#targets[@]} targets, $each s each$([ "$budget" = 0 ] || echo ", $budget s in all")"

run() { # DIR NAME SECONDS
	local out
	out=$(mktemp)
	if (cd "$1" && go test -run '^$' -fuzz "^$2\$" -fuzztime "$3s" -fuzzminimizetime 1s -timeout 10m .) >"$out" 2>&1; then
		rm -f "$out"
		return 0
	fi
	# Go's fuzzer may report its own deadline as a failure of the target when
	# time is up; a real finding always names the input that shows it.
	if grep -q 'context deadline exceeded' "$out" && ! grep -q 'Failing input written' "$out" && ! grep -qE 'panic:|\[build failed\]' "$out"; then
		rm -f "$out"
		return 0
	fi
	cat "$out" >&2
	rm -f "$out"
	return 1
}

begin=$SECONDS
left=${#targets[@]}
skipped=()
failed=
for target in "${targets[@]}"; do
	read -r dir name <<<"$target"
	seconds=$each
	if [ "$budget" != 0 ]; then
		rest=$((budget - (SECONDS - begin)))
		share=$((rest / left))
		[ "$share" -ge "$seconds" ] || seconds=$share
		[ "$seconds" -ge "$least" ] || seconds=$least
		if [ "$rest" -lt "$least" ]; then
			skipped+=("$dir:$name")
			continue
		fi
	fi
	left=$((left - 1))
	echo "fuzz: $dir $name, $seconds s"
	run "$dir" "$name" "$seconds" || failed="$failed $dir:$name"
done

[ ${#skipped[@]} = 0 ] || echo "fuzz: no time left for: ${skipped[*]} (their seeds ran as tests)"
if [ -n "$failed" ]; then
	echo "fuzz: failed:$failed" >&2
	exit 1
fi
echo "fuzz: ok in $((SECONDS - begin)) s"
