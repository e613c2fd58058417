# The tasks of a developer of quicproquo. `make help` lists them.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Programs are static: they run on any Linux, and in an empty image.
PROGRAMS := cell qpq kubectl-qpq

# FUZZTIME is the time per fuzz target, in whole seconds.
FUZZTIME ?= 10s
# Under CI the fuzz targets share this many seconds.
CI_FUZZ_SECONDS := 180

.PHONY: help
help: ## Show this help.
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Use

.PHONY: build
build: ## Build the programs into bin/ (the first time takes minutes).
	@echo "building $(PROGRAMS)"
	@mkdir -p bin
	@CGO_ENABLED=0 go build -v -o bin/ $(addprefix ./cmd/,$(PROGRAMS)) 2>&1 | hack/progress.sh

.PHONY: demo
demo: ## Two people exchange encrypted messages through a cell on this machine.
	@hack/demo.sh

##@ Change

.PHONY: generate
generate: ## Regenerate Go code from the schema and the Kubernetes types.
	@hack/generate.sh schema deepcopy

.PHONY: manifests
manifests: ## Regenerate the CRD and the operator's role from the Go code.
	@hack/generate.sh crd role

##@ Check

.PHONY: lint
lint: ## Check format, go.mod, go vet, and the golangci-lint rules.
	@hack/lint.sh

.PHONY: generate-check
generate-check: generate manifests ## Fail if a committed generated file is out of date.
	@hack/generate-check.sh

.PHONY: test
test: ## Run every test but the cluster's, and each fuzz target briefly under CI.
	@hack/test.sh
	@if [ -n "$${CI:-}" ]; then FUZZTIME=$(FUZZTIME) FUZZBUDGET=$(CI_FUZZ_SECONDS) hack/fuzz.sh; fi

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME (default 10s).
	@FUZZTIME=$(FUZZTIME) hack/fuzz.sh

.PHONY: bench
bench: ## Compare the cell with NATS JetStream for a minute; test/load/run does it thoroughly.
	@test/load/run -quick

.PHONY: secrets
secrets: ## Look for secrets committed by mistake.
	@"$$(hack/tool.sh gitleaks)" git --no-banner --redact .

.PHONY: ci
ci: ## Run what CI runs.
	@.ci/run

include hack/cluster/cluster.mk
include hack/images/images.mk

##@ Clean up

.PHONY: clean
clean: ## Remove built programs. Caches in ~/.cache/quicproquo stay.
	@rm -rf bin coverage.out
