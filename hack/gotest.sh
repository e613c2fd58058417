#!/usr/bin/env bash
# Runs `go test` in the current directory and shows a line for each package,
# failures in full, each test that could not run with what it misses, and what
# tests have counted and say by t.Logf("report: ...").
#
#   hack/gotest.sh FLAGS... PACKAGES...
set -euo pipefail

gotestsum=$("$(dirname "${BASH_SOURCE[0]}")/tool.sh" gotestsum)
events=$(mktemp)
trap 'rm -f "$events"' EXIT

verdict=0
"$gotestsum" --format pkgname-and-test-fails --jsonfile "$events" -- -timeout 20m "$@" || verdict=$?
sed -nE 's/.*"Output":".*report: (.*)\\n"\}$/  \1/p' "$events"
exit "$verdict"
