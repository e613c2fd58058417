##@ Images and deployment

# Where the images are pulled from: for a private mirror, push them there with
# `make images-push IMAGE_REGISTRY=registry.example.org/quicproquo`, and deploy
# with the same setting.
IMAGE_REGISTRY ?= localhost/quicproquo
# A tag other than dev becomes the version that the programs report.
IMAGE_TAG ?= dev
# How the cluster is asked: the local one, or KUBECTL=kubectl for the one that
# kubectl asks by itself.
KUBECTL ?= hack/cluster/in-cluster kubectl
export IMAGE_REGISTRY IMAGE_TAG KUBECTL

images_cache := $(or $(QPQ_CACHE_DIR),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/quicproquo)/images
images_tool = GOWORK=off go run -C hack/images . $(1) -source '$(CURDIR)' -cache '$(images_cache)' -registry '$(IMAGE_REGISTRY)' -tag '$(IMAGE_TAG)'

.PHONY: images
images: ## Build the container images, without Docker (5 minutes the first time).
	@$(call images_tool,build)

.PHONY: images-push
images-push: images ## Push them to a registry: IMAGE_REGISTRY=registry.example.org/quicproquo.
	@case '$(IMAGE_REGISTRY)' in localhost/*) echo 'say where to: make images-push IMAGE_REGISTRY=registry.example.org/quicproquo' >&2; exit 2;; esac
	@$(call images_tool,push)

.PHONY: images-test
images-test: ## Test the images; as root, also by running PostgreSQL's.
	@cd hack/images && GOWORK=off go test -timeout 15m ./...

.PHONY: cluster-load
cluster-load: $(if $(IMAGES_BUILT),,images) ## Load the images into the local cluster.
	@hack/cluster/load-image $(foreach name,operator cell postgres,'$(images_cache)/$(IMAGE_TAG)/$(name).tar')

.PHONY: deploy
deploy: ## Install or update the operator (KUBECTL=kubectl for another than the local cluster).
	@hack/images/deploy up

.PHONY: undeploy
undeploy: ## Remove the operator; refused while there are MessagingCells.
	@hack/images/deploy down

.PHONY: sample
sample: ## Apply the sample MessagingCell and wait until it is ready.
	@hack/images/deploy sample

.PHONY: e2e
e2e: ## Test a cell in a real cluster, made for it (KEEP_CLUSTER=1 leaves it running).
	@test/e2e-kind/run

.PHONY: e2e-full
e2e-full: ## The same and whatever takes longer, on three nodes.
	@E2E_FULL=1 CLUSTER_NODES=$${CLUSTER_NODES:-3} test/e2e-kind/run
