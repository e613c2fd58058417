#!/usr/bin/env bash
# Reads what `go build -v` says, passes on everything but the names of the
# packages it compiles, and tells now and then how many these are.
set -euo pipefail

count=0
begin=$SECONDS
told=$SECONDS
while IFS= read -r line; do
	if [[ ! $line =~ ^[A-Za-z0-9_./~-]+$ ]]; then
		printf '%s\n' "$line"
		continue
	fi
	count=$((count + 1))
	if [ $((SECONDS - told)) -ge 10 ]; then
		echo "  $count packages compiled, $((SECONDS - begin)) s"
		told=$SECONDS
	fi
done
