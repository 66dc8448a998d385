# What a developer types. `make help` lists it; scripts/ does the work, and says
# where it finds Envoy and Consul (scripts/envoy, scripts/consul). What it gets
# or builds is kept in ${CHANCERY_CACHE:-~/.cache/chancery}, never in the tree.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: example-authz help build test test-all test-compose test-oidc test-keycloak demo bench bench-authz bench-rotation differential fuzz check format generate tools clean

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GO_BUILD := CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.buildVersion=$(VERSION)"
# The race detector needs a C compiler, and Go says 0 where there is none.
RACE := $(if $(filter 1,$(shell go env CGO_ENABLED)),-race)
# What `make demo` runs against: file (embedded) or consul.
REGISTRY ?= file
# Narrows `make test` to some packages.
PACKAGES ?= ./...

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{ printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/chancery and bin/shop
	$(GO_BUILD) -o bin/ ./cmd/chancery ./examples/shop

test: ## run the tests with a real Envoy, and a Consul that is there already
	$(if $(RACE),,@echo 'chancery: no C compiler, so no race detector: apt-get install gcc' >&2)
	scripts/with envoy consul? -- go test $(RACE) -timeout 30m $(PACKAGES)

demo: build ## run the shop through real Envoys; REGISTRY=consul, KEEP=1
	scripts/with envoy $(filter consul,$(REGISTRY)) -- env CHANCERY=bin/chancery bin/shop demo --registry $(REGISTRY) $(if $(KEEP),--keep)

example-authz: ## run chancery authz beside a plain Envoy with a static configuration
	scripts/with envoy -- go test -count=1 -v ./examples/authz

bench: build ## measure Consul write -> Envoy routes by it; the last line is JSON
	scripts/with envoy consul -- env CHANCERY=bin/chancery SHOP=bin/shop go run ./bench

bench-authz: ## what an authorization check costs, against servers that do nothing or little; the last line is JSON
	scripts/with envoy -- go run ./bench/authz

bench-rotation: build ## requests while certificates, authorities and keys rotate; the last line is JSON
	@echo "a thousand agents renew at once:"
	@go test -run=- -bench=ThousandRenewals -benchtime=1x ./controlplane | grep -E "^Benchmark|FAIL"
	scripts/with envoy -- env CHANCERY=bin/chancery SHOP=bin/shop go run ./bench -rotation -registry file

# How many requests `make differential` makes up, and from which seed; 0 is
# another one each time.
CASES ?= 1000000
SEED ?= 0

differential: ## a million requests, decided as a small model of extauthz decides them; CASES=, SEED=
	go test ./extauthz/model -run TestDifferential -v -count=1 -timeout 60m -cases $(CASES) -seed $(SEED) | grep -v -e '^=== ' -e '^ *--- PASS'

fuzz: ## every fuzz target for a minute, two at a time; FUZZTIME=
	scripts/fuzz

check: ## formatters, linters, generated files
	$$(scripts/tool golangci-lint) run
	scripts/generate --check

format: ## format the code as `make check` wants it
	$$(scripts/tool golangci-lint) fmt

generate: ## write the generated code, schema and reference
	scripts/generate

test-oidc: ## run the identity providers' contract against oidc-provider (npm)
	scripts/with oidc-provider -- go test $(RACE) -count=1 ./internal/idptest

test-keycloak: ## run it against Keycloak (Maven, Java 17; about 3 minutes)
	scripts/with keycloak -- go test $(RACE) -count=1 ./internal/idptest

test-compose: ## run docker-compose.yml in a Docker engine of its own (root)
	scripts/test-compose

test-all: ## everything: check, test and demo with a Consul built for it, differential, fuzz, oidc-provider, compose
	$(MAKE) check
	scripts/with consul -- $(MAKE) test
	$(MAKE) differential
	$(MAKE) fuzz
	$(MAKE) test-oidc
	$(MAKE) demo REGISTRY=consul
	$(MAKE) test-compose

tools: ## get Envoy and the linter into the cache
	@scripts/envoy
	@scripts/tool golangci-lint

clean: ## remove what was built in the tree; the cache stays
	rm -rf bin
