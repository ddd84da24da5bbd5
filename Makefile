# `make help` lists the targets. Each one makes what it needs first.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Programs that a bare PATH may lack: cargo, and (for a plain user) ip, nft, tcpdump.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin

BIN := .venv/bin
CARGO := cargo --locked
MANIFEST := --manifest-path native/Cargo.toml
PYTEST := $(BIN)/python -m pytest
# The longest first, or a worker is left with one of them at the end.
WITHOUT_ROOT = $(wildcard tests/sim tests/property tests/differential tests/unit)

# More for pytest, the daemons' autotest or the benchmark: make test ARGS='-k nat -x'
ARGS ?=
JOBS ?= 2
# Half of what the namespace tests do is waiting.
NETNS_JOBS ?= 4
FUZZ_SECONDS ?= 60
export FUZZ_SECONDS
export NETNS_JOBS
export SOAK_REPEATS ?= 10
export SOAK_FUZZ_SECONDS ?= 900
export PYTHON

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: ## .venv with omni and omni-daemon, and all that the other targets need (as root: Debian packages too)
	@scripts/setup.sh

.PHONY: check
check: lint unit ## lint, types, import order, Rust, and every test that needs no root

# All linters run, side by side, even after one has failed.
.PHONY: lint
lint: setup ## ruff, mypy --strict, stub, import order, cargo fmt and clippy, shellcheck
	@$(MAKE) -k -j $(JOBS) --output-sync lint-style lint-types lint-imports lint-rust lint-shell

.PHONY: lint-style lint-types lint-imports lint-rust lint-shell
lint-style:
	$(BIN)/ruff check --quiet .
lint-types:
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --concise omninervous._native
lint-imports:
	$(BIN)/lint-imports --no-logo
lint-rust:
	$(CARGO) fmt $(MANIFEST) --all --check
	$(CARGO) fmt --manifest-path native/fuzz/Cargo.toml --check
	$(CARGO) clippy --quiet $(MANIFEST) --workspace --all-targets -- -D warnings
	$(CARGO) clippy --quiet $(MANIFEST) --package omninervous-engine --features null-cipher -- -D warnings

lint-shell:
	shellcheck --external-sources --source-path=SCRIPTDIR .ci/run scripts/*.sh scripts/lib/*.sh

.PHONY: unit
unit: setup
	$(CARGO) test --quiet $(MANIFEST) --workspace
	$(PYTEST) -q -n $(JOBS) $(WITHOUT_ROOT) $(ARGS)

.PHONY: netns
netns: setup ## the end-to-end tests in network namespaces (root)
	@test -x .tools/bin/wireguard || { echo "no .tools/bin/wireguard: install Go 1.23 or newer, then make setup" >&2; exit 1; }
	$(PYTEST) -v -n $(NETNS_JOBS) tests/netns $(ARGS)

.PHONY: test
test: check ## check, then netns: everything (root)
	@$(MAKE) netns

.PHONY: autotest
autotest: setup ## the whole system at work in network namespaces, with a table of results (root)
	@$(BIN)/omni autotest $(ARGS)

.PHONY: bench
bench: ## throughput and latency (root)
	@scripts/setup.sh --bench
	@$(BIN)/omni bench $(ARGS)

.PHONY: wheel
wheel: setup ## dist/: wheel (manylinux2014, TARGET), source, bill of materials, checksums; linked by zig
	@scripts/wheel.sh

.PHONY: images
images: ## container images omninervous-edge and omninervous-nucleus (docker or podman; BASE)
	@scripts/build_local_docker.sh

.PHONY: fuzz
fuzz: ## every target in tests/fuzz and native/fuzz for FUZZ_SECONDS (60) each
	@scripts/setup.sh --fuzz
	@scripts/fuzz.sh

.PHONY: soak
soak: ## what is too long for every run: repeats, long fuzzing, virtual machines; log in soak-log/ (root)
	@scripts/setup.sh --soak
	@scripts/soak.sh

.PHONY: format
format: setup ## put Python and Rust into form
	$(BIN)/ruff check --quiet --fix-only .
	$(BIN)/ruff format .
	$(CARGO) fmt $(MANIFEST) --all
	$(CARGO) fmt --manifest-path native/fuzz/Cargo.toml

.PHONY: lock
lock: setup ## write requirements/*.txt and native/Cargo.lock anew from the newest releases
	@scripts/lock.sh

.PHONY: clean
clean: ## remove everything that make made (not soak-log/)
	rm -rf .venv .tools native/target native/fuzz/{target,corpus,artifacts} dist build .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	rm -f src/omninervous/_native*.so
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
