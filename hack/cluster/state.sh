# What is known of a cluster that runs, and how it is ended. Sourced.
# shellcheck shell=bash
# shellcheck disable=SC2154 # lib.sh comes first

kubeconfig=$state/kubeconfig

# read_state sets way (docker or offline), nodes, image and tools (directories
# for PATH) of the cluster that was brought up; it fails when none was.
read_state() {
	[ -r "$state/up" ] || return 1
	{ IFS= read -r way && IFS= read -r nodes && IFS= read -r image && IFS= read -r tools; } <"$state/up"
}

write_state() {
	printf '%s\n' "$way" "$nodes" "$image" "$tools" >"$state/up.new"
	mv "$state/up.new" "$state/up"
}

# healthy reports whether the API server answers and as many nodes as wanted
# are ready.
healthy() {
	local ready
	ready=$("$here/in-cluster" timeout 20 kubectl get nodes --request-timeout=10s \
		-o 'jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' 2>/dev/null) &&
		[ "$(grep -cx True <<<"$ready")" = "$nodes" ] && [ "$(wc -l <<<"$ready")" = "$nodes" ]
}

docker_answers() { have docker && timeout 10 docker version >/dev/null 2>&1; }

# ordinary_nodes lists the containers of a cluster of ours that the machine's
# own Docker runs.
ordinary_nodes() {
	docker_answers || return 0
	timeout 30 docker ps -aq --filter "label=io.x-k8s.kind.cluster=$cluster"
}

remove_ordinary_nodes() {
	local all
	mapfile -t all < <(ordinary_nodes)
	[ ${#all[@]} = 0 ] || docker rm -fv "${all[@]}"
}

# take_down removes whatever there is of a cluster of ours. What was stored to
# start the next one sooner stays.
take_down() {
	rm -f "$state/up" "$kubeconfig" "$kubeconfig.lock"
	if [ -n "$(ordinary_nodes)" ]; then
		step "removing the nodes from Docker" remove_ordinary_nodes || return 1
	fi
	[ -n "$(engine_traces)" ] || return 0
	[ "$(id -u)" = 0 ] || {
		say "root started this cluster, and must end it"
		return 1
	}
	step "stopping the nodes and the engine" stop_engine
}
