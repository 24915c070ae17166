# Touchstone. Every target installs what it needs (Debian 12) and says so; see scripts/.
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help demo build images test race lint bench fuzz e2e-vm e2e-cluster e2e-images clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## three workers with a TPM each: enrolled, attested, tampered with (DEMO="--keep" leaves it running)
	@scripts/build touchstone
	@scripts/need demo
	@bin/touchstone demo $(DEMO)

build: ## static programs into bin/
	@scripts/build

images: ## container images into bin/images (IMAGES="-repository registry.example/touchstone -push" sends them to a registry)
	@scripts/images $(IMAGES)

test: ## go vet and every test
	@scripts/test

race: ## tests of the concurrent packages under the race detector
	@scripts/race

lint: ## gofmt, go vet, golangci-lint, govulncheck
	@scripts/lint

bench: ## every benchmark, as a table (BENCH=regexp BENCHTIME=100ms)
	@scripts/bench

fuzz: ## every fuzz target for FUZZTIME=10s each
	@scripts/fuzz

e2e-vm: ## boot virtual machines with Secure Boot and a TPM, and judge them
	@CGO_ENABLED=0 scripts/go test -count=1 -v -p 1 -timeout 60m -tags vm ./test/vm/...

e2e-cluster: ## a real Kubernetes with workers that have a TPM each, and the scenarios on it (RUN=TestS1, E2E_KEEP=1: keep it)
	@CGO_ENABLED=0 scripts/go test -count=1 -v -p 1 -timeout 90m -tags cluster -run '$(or $(RUN),.)' ./test/cluster

e2e-images: ## encrypted images with Debian's containerd and a 2.x: a trusted worker decrypts and runs, others are told why not (RUNTIMES="debian v1 v2")
	@scripts/e2e-images $(RUNTIMES)

clean: ## remove bin/ and .cache/
	@rm -rf bin .cache
