#!/usr/bin/env bash
# Two people exchange end-to-end-encrypted messages through a cell on this
# machine. Ends with "demo: ok", or not at all.
set -euo pipefail

cd "$(dirname "$0")/.."

manifest=config/samples/messagingcell.yaml
patience=120 # seconds until the cell must be ready
began=$SECONDS

work=$(mktemp -d "${TMPDIR:-/tmp}/quicproquo-demo.XXXXXX") # mode 0700: the cell's data lies where only we can go
cell_pid=

say() { printf '\n==> %s\n' "$*"; }
fail() {
	printf 'demo: %s\n' "$*" >&2
	exit 1
}

stop_cell() {
	[ -n "$cell_pid" ] || return 0
	local pid=$cell_pid
	cell_pid=
	kill -TERM "$pid" 2>/dev/null || true
	# A cell that hangs is not waited for forever.
	local until=$((SECONDS + 60))
	while kill -0 "$pid" 2>/dev/null; do
		[ "$SECONDS" -lt "$until" ] || kill -KILL "$pid" 2>/dev/null || true
		sleep 0.1
	done
	wait "$pid"
}

cleanup() {
	local verdict=$?
	trap - EXIT
	stop_cell || true
	if [ "$verdict" != 0 ] && [ -s "$work/cell.log" ]; then
		echo "the cell's last lines:" >&2
		tail -n 30 "$work/cell.log" >&2
	fi
	rm -rf "$work"
	exit "$verdict"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# value NAME reads the value of a field from JSON of one level. Our own
# programs wrote it, so that its form is known.
value() {
	sed -nE "s/.*\"$1\": *(\"([^\"]*)\"|([0-9.]+)).*/\2\3/p" | head -n 1
}

connection() { value "$1" <"$work/cell/connection.json"; }

# qpq NAME ARGS... is what that person types.
declare -A passphrase
qpq() {
	local who=$1
	shift
	QPQ_PASSPHRASE=${passphrase[$who]} bin/qpq --cell "$endpoint" --ca "$ca" --profile "$work/$who" "$@"
}

# stored is the number of message bytes that the server has been given, by its
# own account.
stored() {
	local address path=/metrics line
	address=${ops#http://}
	exec 3<>"/dev/tcp/${address%:*}/${address##*:}"
	printf 'GET %s HTTP/1.0\r\nHost: %s\r\n\r\n' "$path" "$address" >&3
	line=$(grep '^qpq_enqueued_bytes_total ' <&3 || true)
	exec 3>&-
	[ -n "$line" ] || fail "the cell's metrics do not tell the stored bytes"
	awk '{ printf "%d", $2 }' <<<"${line%$'\r'}"
}

# tell FROM TO TEXT sends a message and makes sure that TO reads the very same.
tell() {
	local from=$1 to=$2 text=$3 before after sent seq received
	before=$(stored)
	sent=$(qpq "$from" --json dm "$to" "$text")
	after=$(stored)
	seq=$(value seq <<<"$sent")
	[ -n "$seq" ] || fail "$from's message has no sequence number: $sent"
	received=$(qpq "$to" --json read | grep -F "\"$text\"" || true)
	[ -n "$received" ] || fail "$to did not receive: $text"
	[ "$(value seq <<<"$received")" = "$seq" ] || fail "$to saw another sequence number than $seq: $received"
	[ "$(value from <<<"$received")" = "$from" ] || fail "$to saw another sender than $from: $received"
	[ "$(value channel <<<"$received")" = "$(value channel <<<"$sent")" ] || fail "$to saw another channel: $received"
	printf '  #%-3s %-5s -> %-5s  %-44s the server saw %d bytes of ciphertext\n' \
		"$seq" "$from" "$to" "\"$text\"" $((after - before))
	[ $((after - before)) -gt ${#text} ] || fail "the server was given fewer bytes than the text has"
}

say "installing what is missing"
hack/install-deps.sh postgres

say "building (minutes the first time)"
make build

say "starting a cell from $manifest"
mkdir "$work/cell"
: >"$work/cell.log"
bin/kubectl-qpq dev -f "$manifest" --dir "$work/cell" >"$work/cell.log" 2>&1 </dev/null &
cell_pid=$!
shown=0
deadline=$((SECONDS + patience))
until [ -s "$work/cell/connection.json" ]; do
	kill -0 "$cell_pid" 2>/dev/null || fail "the cell ended before it was ready"
	[ "$SECONDS" -lt "$deadline" ] || fail "the cell is not ready after $patience s"
	lines=$(wc -l <"$work/cell.log")
	[ "$lines" = "$shown" ] || sed -n "$((shown + 1)),${lines}s/^/  cell: /p" "$work/cell.log"
	shown=$lines
	sleep 0.1
done
endpoint=$(connection endpoint) ca=$(connection caFile) ops=$(connection opsURL)
echo "  ready at $endpoint, CA pin $(connection pin)"

say "alice and bob sign up"
for who in alice bob; do
	passphrase[$who]=$(head -c 18 /dev/urandom | base64)
	qpq "$who" signup "$who" | sed "s/^/  $who: /"
done

say "they talk; each line was read back by the one it was for"
secrets=("Hello Bob, meet me at the old mill at nine" "I shall bring the map" "Nobody but us two can read this")
tell alice bob "${secrets[0]}"
tell bob alice "${secrets[1]}"
tell alice bob "${secrets[2]}"

say "looking for the words in every file of the server and of both people"
for text in "${secrets[@]}"; do
	if grep -rqaF -- "$text" "$work"; then fail "found in plain text on disk: $text"; fi
done
echo "  none found"

say "stopping the cell"
stop_cell || fail "the cell did not stop cleanly"
if pid_file=$(find "$work/cell" -name postmaster.pid) && [ -n "$pid_file" ]; then
	fail "PostgreSQL was left running"
fi
echo "  cell and PostgreSQL are gone"

printf '\n%s s\ndemo: ok\n' $((SECONDS - began))
