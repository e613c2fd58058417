# A Docker engine of our own, in a network namespace of its own: the machine's
# network, firewall and mounts stay as they are. For root on Linux. Sourced.
# shellcheck shell=bash
# shellcheck disable=SC2154 # lib.sh comes first

# What only this boot of the machine has: sockets and the network namespace.
run=/run/quicproquo
netns=$run/netns
control_group=quicproquo # in each hierarchy
export_docker() { export DOCKER_HOST=unix://$run/docker.sock; }

# What the kubelet and a node's systemd change for the whole machine, and what
# several nodes need more of. They are put back when the engine ends.
sysctls=(
	vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops
	kernel.keys.root_maxkeys kernel.keys.root_maxbytes kernel.pid_max
	fs.file-max fs.nr_open fs.inotify.max_user_instances
	fs.protected_fifos fs.protected_hardlinks fs.protected_regular fs.protected_symlinks
)

# Where Docker and containerd put sockets, wherever else they are told to. Ours
# sees empty ones; if we made them, they are removed in the end.
private_dirs=(/run/docker /run/containerd)

# engine_groups lists our control groups, innermost first.
engine_groups() {
	local top
	for top in /sys/fs/cgroup/"$control_group" /sys/fs/cgroup/*/"$control_group"; do
		[ ! -d "$top" ] || find "$top" -depth -type d 2>/dev/null
	done
}

# engine_processes lists what runs in our control groups: the engine, and all
# that its containers run.
engine_processes() {
	local group
	engine_groups | while IFS= read -r group; do cat "$group/cgroup.procs" 2>/dev/null || true; done | sort -nu | grep -vx 0 || true
}

# engine_traces says what is there of an engine, running or not.
engine_traces() {
	local what
	what=$(engine_processes | wc -l)
	[ "$what" = 0 ] || echo "$what processes"
	what=$(engine_groups | wc -l)
	[ "$what" = 0 ] || echo "$what control groups"
	! grep -q " $run/" /proc/self/mountinfo || echo "mounts below $run"
	[ ! -e "$run" ] || echo "$run"
}

engine_answers() {
	[ -S "$run/docker.sock" ] && DOCKER_HOST=unix://$run/docker.sock timeout 10 docker version >/dev/null 2>&1
}

save_sysctls() {
	local name value
	for name in "${sysctls[@]}"; do
		value=$(sysctl -n "$name" 2>/dev/null) || continue
		printf '%s=%s\n' "$name" "$value"
	done >"$run/sysctls.new"
	mv "$run/sysctls.new" "$run/sysctls"
	[ "$(sysctl -n fs.inotify.max_user_instances)" -ge 1024 ] || sysctl -qw fs.inotify.max_user_instances=1024
}

restore_sysctls() {
	local setting name
	[ -r "$run/sysctls" ] || return 0
	while IFS= read -r setting; do
		name=${setting%%=*}
		[ "$(sysctl -n "$name")" = "${setting#*=}" ] || sysctl -qw "$setting"
	done <"$run/sysctls"
}

# make_netns keeps a network namespace open at $netns. Not `ip netns`: it would
# leave a mount of its own, and its `exec` hides the control groups.
make_netns() {
	: >"$netns"
	unshare --net="$netns" true
	nsenter --net="$netns" ip link set lo up
}

# missing_capabilities reports whether containers here cannot have all of root's
# capabilities, as Docker's --privileged asks for.
missing_capabilities() {
	local bound
	bound=$(awk '$1 == "CapBnd:" { print $2 }' /proc/self/status)
	((!(0x$bound >> 24 & 1))) # CAP_SYS_RESOURCE
}

engine_config() {
	local runtime=$state/runc-without-sys-resource
	if missing_capabilities; then
		# A copy, for the checkout may change under a running engine.
		install -m 755 "$here/runc-without-sys-resource" "$runtime"
		printf '{"runtimes":{"quicproquo":{"path":"%s"}},"default-runtime":"quicproquo"}\n' "$runtime"
	else
		echo '{}'
	fi
}

# stop_containers asks politely, so that the engine forgets them and their data.
stop_containers() {
	local all
	engine_answers || return 0
	export_docker
	mapfile -t all < <(timeout 30 docker ps -aq)
	[ ${#all[@]} = 0 ] || timeout 90 docker rm -fv "${all[@]}" || true
	timeout 30 docker network prune -f || true
	timeout 30 docker volume prune -f || true
}

# engine_wrapper GROUP DIR... -- COMMAND... is what becomes the engine.
# shellcheck disable=SC2016 # for the inner shell to expand
engine_wrapper='
echo $$ >"$1/cgroup.procs"
shift
while [ "$1" != -- ]; do
	mount -t tmpfs -o mode=755 quicproquo "$1"
	shift
done
shift
mount --make-rshared /
exec "$@"'

# start_engine returns once the engine answers. No default ulimits: without
# CAP_SYS_RESOURCE a container could not be given them.
start_engine() {
	local group=/sys/fs/cgroup/pids/$control_group/engine
	[ ! -e /sys/fs/cgroup/cgroup.controllers ] || group=/sys/fs/cgroup/$control_group/engine
	mkdir -p "$run" "$state/docker" "$state/logs" "$group"
	chmod 700 "$run"
	[ -e "$run/sysctls" ] || save_sysctls
	local dir
	for dir in "${private_dirs[@]}"; do
		[ -d "$dir" ] || { mkdir "$dir" && echo "$dir" >>"$run/made"; }
	done
	make_netns
	engine_config >"$state/docker.json"
	# Its mounts are its own and end with it; they are shared among its nodes.
	# No lock of ours is inherited: the engine outlives this script.
	(
		for fd in /proc/self/fd/*; do
			fd=${fd##*/}
			[ "$fd" -le 2 ] || eval "exec $fd>&-"
		done
		exec setsid nsenter --net="$netns" unshare --mount --propagation private \
			bash -ec "$engine_wrapper" engine "$group" "${private_dirs[@]}" -- \
			dockerd --config-file "$state/docker.json" --data-root "$state/docker" --exec-root "$run/docker" \
			--pidfile "$run/docker.pid" --host "unix://$run/docker.sock" --storage-driver overlay2 \
			--exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$control_group" --shutdown-timeout 5
	) >"$state/logs/dockerd.log" 2>&1 </dev/null &
	local began=$SECONDS
	until engine_answers; do
		if [ $((SECONDS - began)) -ge 60 ] || { [ $((SECONDS - began)) -ge 3 ] && [ -z "$(engine_processes)" ]; }; then
			tail -n 20 "$state/logs/dockerd.log"
			echo "the Docker engine does not start; its log is $state/logs/dockerd.log"
			return 1
		fi
		sleep 0.2
	done
	# Nodes that the last engine had no chance to remove.
	stop_containers
}

# end_processes SIGNAL SECONDS signals all that is ours until nothing is left.
end_processes() {
	local until=$((SECONDS + $2)) left
	while left=$(engine_processes) && [ -n "$left" ]; do
		# shellcheck disable=SC2086 # one word per process
		kill "-$1" $left 2>/dev/null || true
		[ "$SECONDS" -lt "$until" ] || return 1
		sleep 0.3
	done
}

# stop_engine ends the engine and all it runs, and leaves nothing of it but
# what it had stored. It works from any state that a failure can leave behind.
stop_engine() {
	local group engine
	stop_containers
	engine=$(cat "$run/docker.pid" 2>/dev/null || true)
	if [ -n "$engine" ] && engine_processes | grep -qx "$engine"; then
		kill -TERM "$engine" 2>/dev/null || true
		local until=$((SECONDS + 20))
		while [ -d "/proc/$engine" ] && [ "$SECONDS" -lt "$until" ]; do sleep 0.2; done
	fi
	end_processes KILL 20 || true
	until=$((SECONDS + 60))
	while [ -n "$(engine_groups)" ] && [ "$SECONDS" -lt "$until" ]; do
		engine_groups | while IFS= read -r group; do rmdir "$group" 2>/dev/null || true; done
		sleep 0.1
	done
	restore_sysctls
	[ ! -e "$run/made" ] || xargs rmdir --ignore-fail-on-non-empty <"$run/made" || true
	while grep -q " $netns " /proc/self/mountinfo; do umount "$netns" || umount -l "$netns" || break; done
	rm -rf "$run"
	local traces
	traces=$(engine_traces)
	[ -z "$traces" ] || {
		printf 'still there: %s\n' "$traces"
		return 1
	}
}
