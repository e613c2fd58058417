##@ Cluster

.PHONY: cluster-up
cluster-up: ## Bring up a local Kubernetes cluster (CLUSTER_NODES=3 for three nodes).
	@hack/cluster/up.sh

.PHONY: cluster-down
cluster-down: ## Remove the local cluster without a trace; the cache stays.
	@hack/cluster/down.sh

.PHONY: cluster-assets
cluster-assets: ## Build what a cluster without a registry runs (30 minutes on an empty cache).
	@hack/cluster/assets.sh >/dev/null

.PHONY: envtest-assets
envtest-assets: ## Build etcd, kube-apiserver and kubectl for tests, and print their directory.
	@hack/cluster/envtest-assets.sh

.PHONY: cluster-test
cluster-test: ## Test the programs that the local cluster has of its own.
	@for dir in mkimage cni; do (cd hack/cluster/$$dir && go vet ./... && go test ./...); done
