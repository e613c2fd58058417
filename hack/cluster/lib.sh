# What the scripts of this directory share. Sourced, not run.
# shellcheck shell=bash
# shellcheck disable=SC2034 # read by the scripts that source this

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${QPQ_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/quicproquo}
# What belongs to the cluster of this machine: kubeconfig, logs, Docker's data.
state=$cache/cluster
cluster=quicproquo

say() { printf 'cluster: %s\n' "$*" >&2; }
fail() {
	say "$*"
	exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# on_exit COMMAND runs COMMAND when the script ends, however it ends: the last
# one named first. The script's verdict stays what it was.
exit_commands=()
on_exit() { exit_commands=("$1" "${exit_commands[@]}"); }
run_exit_commands() {
	local verdict=$?
	# A second Ctrl-C must not leave half of the cleaning undone.
	trap '' INT TERM HUP
	trap - EXIT
	set +e
	local command
	for command in "${exit_commands[@]}"; do "$command" "$verdict"; done
	exit "$verdict"
}
trap run_exit_commands EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# lock NAME waits until no other script holds NAME, and holds it until this one
# ends.
lock() {
	local fd waited=0
	mkdir -p "$cache/locks"
	exec {fd}>"$cache/locks/$1"
	until flock -w 5 "$fd"; do
		waited=$((waited + 5))
		say "waiting for another one to finish ($1): $waited s"
	done
}

# step LABEL COMMAND... runs a command that takes long, and says every few
# seconds how far it is. Its output is kept, and shown when it fails. It runs
# in a process group of its own, so that all of it ends when the script does.
step_pid=
step_log=
step() {
	local label=$1 began=$SECONDS next verdict=0
	shift
	step_log=$(mktemp)
	say "$label"
	set -m
	"$@" >"$step_log" 2>&1 </dev/null &
	step_pid=$!
	set +m
	next=$((SECONDS + 5))
	while kill -0 "$step_pid" 2>/dev/null; do
		sleep 0.5
		[ "$SECONDS" -ge "$next" ] || continue
		next=$((SECONDS + 5))
		say "$label: $((SECONDS - began)) s$(tail -n 1 "$step_log" | tr -dc '[:print:]' | cut -c1-70 | sed 's/^\(.\)/, \1/')"
	done
	wait "$step_pid" || verdict=$?
	# What it started and left behind, if it failed.
	kill -TERM -- "-$step_pid" 2>/dev/null || true
	step_pid=
	if [ "$verdict" != 0 ]; then
		tail -n 40 "$step_log" >&2
		say "$label: failed after $((SECONDS - began)) s"
	elif [ $((SECONDS - began)) -ge 5 ]; then
		say "$label: done in $((SECONDS - began)) s"
	fi
	rm -f "$step_log"
	step_log=
	return "$verdict"
}
# shellcheck disable=SC2317 # called by run_exit_commands
end_step() {
	[ -z "$step_log" ] || rm -f "$step_log"
	step_log=
	[ -n "$step_pid" ] || return 0
	kill -TERM -- "-$step_pid" 2>/dev/null
	local until=$((SECONDS + 10))
	while kill -0 -- "-$step_pid" 2>/dev/null; do
		[ "$SECONDS" -lt "$until" ] || kill -KILL -- "-$step_pid" 2>/dev/null
		sleep 0.1
	done
	step_pid=
}

# ask COMMAND... runs another script of ours and leaves what it prints in
# $answer. Unlike $(COMMAND), it can be interrupted: then the other one is told
# to end, and cleans up, before this one goes on to do so.
ask_pid=
ask_file=
answer=
ask() {
	local verdict=0
	ask_file=$(mktemp)
	set -m
	"$@" >"$ask_file" </dev/null &
	ask_pid=$!
	set +m
	wait "$ask_pid" || verdict=$?
	ask_pid=
	answer=$(<"$ask_file")
	rm -f "$ask_file"
	ask_file=
	return "$verdict"
}
# shellcheck disable=SC2317 # called by run_exit_commands
end_ask() {
	[ -z "$ask_file" ] || rm -f "$ask_file"
	[ -n "$ask_pid" ] || return 0
	kill -TERM "$ask_pid" 2>/dev/null
	wait "$ask_pid"
	ask_pid=
}

# end_children ends what this script still waits for.
# shellcheck disable=SC2317 # called by run_exit_commands
end_children() {
	end_ask
	end_step
}

# scratch makes a directory that is removed when the script ends, and leaves its
# path in $scratch. What a killed script left is removed too.
scratch=
scratches=()
scratch() {
	local old owner
	mkdir -p "$cache/scratch"
	for old in "$cache"/scratch/*; do
		owner=$(basename "${old%.*}")
		[ ! -d "$old" ] || kill -0 "$owner" 2>/dev/null || rm -rf "$old"
	done
	scratch=$cache/scratch/$$.${#scratches[@]}
	mkdir "$scratch"
	scratches+=("$scratch")
}
# shellcheck disable=SC2317 # called by run_exit_commands
remove_scratches() { [ ${#scratches[@]} = 0 ] || rm -rf "${scratches[@]}"; }
on_exit remove_scratches
on_exit end_children # before what they write to is removed

short_hash() { sha256sum | cut -c1-12; }
