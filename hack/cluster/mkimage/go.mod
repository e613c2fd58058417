module quicproquo.dev/hack/cluster/mkimage

go 1.26.0
