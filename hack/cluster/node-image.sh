#!/usr/bin/env bash
# Makes the image of kind's nodes without a registry, and prints its name: the
# Debian of node-root.sh, the files that kind's own image has besides, our
# programs, and every container image that a cluster starts with.
#
# Needs root and a running engine, named by DOCKER_HOST.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$here/programs.sh"
. "$here/engine.sh"

ask "$here/assets.sh" "${node_programs[@]}" mkimage
paths=$answer
ask "$here/node-root.sh"
root_tar=$answer
kind_source=$(cd "$here/modules/kind" && GOWORK=off go mod download && GOWORK=off go list -m -f '{{.Dir}}' sigs.k8s.io/kind)
version=$(required "$here/modules/kubernetes" k8s.io/kubernetes)
restricted=no
! missing_capabilities || restricted=yes
repository=quicproquo.dev/cluster/node
declare -A built
while IFS= read -r path; do built[$(basename "$path")]=$path; done <<<"$paths"

# kind's storage manifest is a constant in its source, with two image names
# spliced in.
storage_source=$kind_source/pkg/build/nodeimage/const_storage.go
go_constant() { sed -n "s/^const $1 = \"\(.*\)\"\$/\1/p" "$storage_source"; }
storage_image=$(go_constant storageProvisionerImage)
helper_image=$(go_constant storageHelperImage)
# shellcheck disable=SC2016 # the backquotes are Go's
storage_manifest() {
	sed -n '/^const defaultStorageManifest = `/,/^`$/p' "$storage_source" | sed '1d;$d' |
		sed -e "s#\` + storageProvisionerImage + \`#$storage_image#" -e "s#\` + storageHelperImage + \`#$helper_image#"
}

# install_files puts what is not Debian's into the root.
install_files() { # ROOT
	local root=$1 files=$kind_source/images/base/files file mode name
	while IFS= read -r file; do
		mode=644
		case $file in usr/local/bin/* | kind/bin/*) mode=755 ;; esac
		install -D -m "$mode" "$files/$file" "$root/$file"
	done < <(cd "$files" && find . -type f -printf '%P\n')
	for name in containerd containerd-shim-runc-v2 ctr; do install -D -m 755 "${built[$name]}" "$root/usr/local/bin/$name"; done
	install -D -m 755 "${built[runc]}" "$root/usr/local/sbin/runc"
	for name in kubelet kubeadm kubectl; do install -D -m 755 "${built[$name]}" "$root/usr/bin/$name"; done
	for name in host-local loopback portmap ptp; do install -D -m 755 "${built[$name]}" "$root/opt/cni/bin/$name"; done
	mkdir -p "$root/etc/kubernetes/manifests" "$root/etc/cni/net.d" "$root/kind/manifests"
	printf %s "$version" >"$root/kind/version"
	cp "$here/manifests/cni.yaml" "$root/kind/manifests/default-cni.yaml"
	storage_manifest >"$root/kind/manifests/default-storage.yaml"
}

# configure makes systemd fit for a container, as kind's own image does.
configure() { # ROOT
	local root=$1
	rm -f "$root"/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service \
		"$root"/{lib,etc}/systemd/system/multi-user.target.wants/* "$root"/etc/systemd/system/*.wants/* \
		"$root"/lib/systemd/system/{local-fs,basic}.target.wants/* \
		"$root"/lib/systemd/system/sockets.target.wants/*{udev,initctl}*
	# These would set the machine's own kernel.
	rm -f "$root"/usr/lib/sysctl.d/{50-pid-max,99-protect-links}.conf
	echo ReadKMsg=no >>"$root/etc/systemd/journald.conf"
	chroot "$root" systemctl enable kubelet.service containerd.service undo-mount-hacks.service
	chroot "$root" systemctl mask systemd-binfmt.service
	# Nobody may lower an OOM score without CAP_SYS_RESOURCE.
	[ "$restricted" = no ] ||
		sed -i 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' "$root/etc/containerd/config.toml"
	"${built[ctr]}" oci spec |
		jq '.hooks.createContainer += [{path: "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' \
			>"$root/etc/containerd/cri-base.json"
}

# firewall_tree copies from ROOT what kube-proxy and the pod network call:
# iptables, nft and conntrack, with the libraries they load, among them those of
# xtables' extensions, which the programs themselves do not name.
firewall_tree() { # ROOT TREE
	local root=$1 tree=$2 libs name suffix file
	libs=$(cd "$root" && echo usr/lib/*/xtables)
	libs=/${libs%/xtables}
	mkdir -p "$tree"/{usr/sbin,usr/local/bin,etc,run,tmp} "$tree$libs"
	ln -s usr/sbin "$tree/sbin"
	ln -s usr/lib "$tree/lib"
	cp "$root"/usr/sbin/{xtables-nft-multi,nft,conntrack} "$tree/usr/sbin/"
	for name in iptables ip6tables; do
		for suffix in '' -save -restore; do ln -s xtables-nft-multi "$tree/usr/sbin/$name$suffix"; done
	done
	cp -r "$root$libs/xtables" "$tree$libs/"
	cp "$root"/etc/{protocols,services} "$tree/etc/" 2>/dev/null || true # from a package that need not be there
	chroot "$root" sh -c "ldd /usr/sbin/xtables-nft-multi /usr/sbin/nft /usr/sbin/conntrack $libs/xtables/*.so" |
		awk '$2 == "=>" && $3 ~ "^/" { print $3 } $1 ~ "^/.*/ld-" { print $1 }' | sort -u |
		while IFS= read -r file; do
			case $file in /lib/*) name=/usr$file ;; *) name=$file ;; esac
			mkdir -p "$tree$(dirname "$name")"
			cp -L "$root$file" "$tree$name"
		done
}

busybox_tree() { # ROOT TREE
	local name
	mkdir -p "$2/bin"
	cp "$1/bin/busybox" "$2/bin/"
	for name in sh mkdir rm ls cat; do ln -s busybox "$2/bin/$name"; done
}

# pack DIR IMAGE PROGRAM [FLAGS...] makes an image that runs one program.
pack() {
	local out=$1 name=$2 program=$3
	shift 3
	"${built[mkimage]}" -o "$out/$program.tar" -t "$name" -add "${built[$program]}=/usr/local/bin/$program" \
		-entrypoint "/usr/local/bin/$program" "$@"
}

# images makes an archive of every image that a new cluster runs. Their names
# are the ones that kubeadm, containerd's configuration and kind ask for.
images() { # ROOT OUT
	local root=$1 out=$2 name tree=$2/tree
	mkdir -p "$out" "$tree/plain/tmp"
	chmod 1777 "$tree/plain/tmp"
	firewall_tree "$root" "$tree/firewall"
	busybox_tree "$root" "$tree/busybox"
	"${built[kubeadm]}" config images list --kubernetes-version "$version" >"$out/names" 2>/dev/null
	while IFS= read -r name; do
		case $name in
		*/kube-proxy:*) pack "$out" "$name" kube-proxy "$tree/firewall" ;;
		*/kube-*:*) pack "$out" "$name" "$(basename "${name%:*}")" "$tree/plain" ;;
		*/etcd:*) "${built[mkimage]}" -o "$out/etcd.tar" -t "$name" -add "${built[etcd]}=/usr/local/bin/etcd" "$tree/plain" ;;
		*/coredns:*) pack "$out" "$name" coredns ;;
		*/pause:*)
			pack "$out" "$name" pause -user 65535:65535 \
				-t "$(sed -nE 's/^ *sandbox_image = "(.*)"/\1/p' "$root/etc/containerd/config.toml")"
			;;
		*) echo "kubeadm asks for an image that we do not know: $name" && return 1 ;;
		esac
	done <"$out/names"
	pack "$out" quicproquo.dev/cluster/qpq-cni:1 qpq-cni "$tree/firewall"
	pack "$out" "$storage_image" local-path-provisioner "$tree/plain"
	"${built[mkimage]}" -o "$out/helper.tar" -t "$helper_image" "$tree/busybox"
}

# preload imports the archives into the containerd of ROOT, with one that runs
# for the purpose. Pinned, so that the kubelet never cleans them away.
preload() { # ROOT IMAGES WORK
	local root=$1 images=$2 work=$3 daemon tries=0 archive
	local ctr=("${built[ctr]}" --address "$run/import" --namespace k8s.io images)
	mkdir -p "$work"
	printf 'version = 3\nroot = "%s"\nstate = "%s"\ndisabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"]\n[grpc]\naddress = "%s"\n[ttrpc]\naddress = "%s"\n' \
		"$work/root" "$work/state" "$run/import" "$run/import.ttrpc" >"$work/config.toml"
	"${built[containerd]}" --config "$work/config.toml" >"$work/log" 2>&1 &
	daemon=$!
	until "${ctr[@]}" ls -q >/dev/null 2>&1; do
		tries=$((tries + 1))
		if [ "$tries" -gt 100 ]; then
			tail "$work/log"
			return 1
		fi
		sleep 0.2
	done
	for archive in "$images"/*.tar; do
		echo "importing $(basename "$archive")"
		"${ctr[@]}" import --label=io.cri-containerd.pinned=pinned --all-platforms --no-unpack --digests "$archive" >/dev/null
	done
	kill "$daemon"
	wait "$daemon" || true
	mkdir -p "$root/var/lib/containerd"
	mv "$work"/root/io.containerd.{content.v1.content,metadata.v1.bolt} "$root/var/lib/containerd/"
}

build() { # WORK
	local root=$1/root
	mkdir "$root"
	echo "unpacking Debian"
	tar -C "$root" -xf "$root_tar"
	install_files "$root"
	configure "$root"
	echo "packing the images"
	images "$root" "$1/images"
	preload "$root" "$1/images" "$1/containerd"
	rm -rf "$1/images" "$1/containerd"
	echo "handing the node to the engine"
	tar -C "$root" --numeric-owner -c . |
		docker import --change 'ENV container=docker' \
			--change 'ENTRYPOINT ["/usr/local/bin/entrypoint","/sbin/init"]' - "$image"
}

# Images of earlier recipes are of no use to anyone.
remove_others() {
	local other
	docker images --format '{{.Repository}}:{{.Tag}}' "$repository" | while IFS= read -r other; do
		[ "$other" = "$image" ] || docker rmi "$other" || true
	done
	docker image prune -f
}

# Whatever goes into the image, and how.
image=$repository:$version-$({
	echo "$paths" "$root_tar" "$kind_source" "$restricted"
	declare -f storage_manifest install_files configure firewall_tree busybox_tree pack images preload build
	cat "$here/manifests/cni.yaml"
} | short_hash)
if ! docker image inspect "$image" >/dev/null 2>&1; then
	lock node-image
	scratch
	# Whatever is started here ends with it.
	step "making the node image, once (1 to 2 minutes)" build "$scratch"
	step "removing older node images" remove_others
fi
echo "$image"
