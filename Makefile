# Everything a person does with this tree. `make` or `make help` tells what there is.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

BIN := .venv/bin
# What `make test` leaves out: `make gpu-test` and `make k8s-test` run these.
SELECT := not gpu and not cluster

.PHONY: help
help: ## Tell what can be made
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(BIN)/.runtime ## Judge sample images in one process, without servers: a table, an HTML report, the review desk
	@$(BIN)/sluice demo

.PHONY: test test-units test-servers
test: test-units test-servers ## Run all tests but gpu and cluster; real Kafka, Redis and S3 start by themselves
# Tests of single parts share the processors. Those on real servers watch the time, so they run one after another.
test-units: prerequisites deployment-tools $(BIN)/.all
	$(BIN)/python -m pytest -n auto --maxprocesses 4 -m "$(SELECT)" tests/unit tests/property
test-servers: prerequisites deployment-tools $(BIN)/.all
	$(BIN)/python -m pytest -m "$(SELECT)" tests/integration tests/browser

.PHONY: lint lint-style lint-types lint-layers lint-schemas lint-js
lint: lint-style lint-types lint-layers lint-schemas lint-js ## Check style, types, layers, the page, and that the generated schemas are fresh
lint-style: $(BIN)/.all
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell
	$(BIN)/proselint check --config .proselintrc.json *.md docs/*.md trt_build/*.md ops/runbooks/*.md
lint-types: $(BIN)/.all
	$(BIN)/mypy
lint-layers: $(BIN)/.all
	$(BIN)/lint-imports
lint-schemas: $(BIN)/.dev
	$(BIN)/python -m schemas.generate --check
	$(BIN)/python -m worker.settings.reference --check
	$(BIN)/python -m ops.helm --check
lint-js: | $(BIN)/python
	@ops/dev/page_checks.sh

.PHONY: bench
bench: server-prerequisites $(BIN)/.all ## Measure stages, engines, latency and the whole path; writes ops/benchmarks/*.json and plots
	$(BIN)/python -m ops.benchmarks.decode_benchmark --out ops/benchmarks
	$(BIN)/python -m ops.benchmarks.decoder_processes_benchmark --out ops/benchmarks
	$(BIN)/python -m ops.benchmarks.stages_benchmark --out ops/benchmarks
	$(BIN)/python -m ops.benchmarks.first_second_benchmark --out ops/benchmarks
	$(BIN)/python -m ops.benchmarks.engines_benchmark --out ops/benchmarks
	$(BIN)/python -m ops.benchmarks.sweep_benchmark --out ops/benchmarks
	$(BIN)/python -m ops.benchmarks.latency_benchmark --out ops/benchmarks
	$(BIN)/python -m ops.benchmarks.pipeline_benchmark --out ops/benchmarks
	$(BIN)/python -m ops.benchmarks.clients_benchmark --out ops/benchmarks
	$(BIN)/python -m ops.benchmarks.desk_benchmark --out ops/benchmarks
	OMP_NUM_THREADS=1 $(BIN)/python -m ops.benchmarks.desk_scale_benchmark --out ops/benchmarks
	$(BIN)/python -m ops.benchmarks.serve_benchmark --out ops/benchmarks
	$(BIN)/python -m ops.benchmarks.trust_benchmark --out ops/benchmarks
	$(BIN)/python -m ops.benchmarks.drift_benchmark --out ops/benchmarks

.PHONY: drills
drills: server-prerequisites $(BIN)/.all ## Kill, freeze and stop workers and servers while events flow, count the verdicts; writes ops/drills/drills.md
	$(BIN)/python -m ops.drills --out ops/drills

.PHONY: gpu-test
gpu-test: $(BIN)/.all ## Build, run, compare and time engines on this machine's NVIDIA GPU; says what it could not run
	$(BIN)/python -m pytest -m gpu -s tests/gpu

.PHONY: k8s-test
k8s-test: deployment-tools ## Install the Helm chart on a real Kubernetes API server with KubeRay, built the first time (9 CPU minutes)
	@ops/dev/prerequisites.sh kubernetes
	$(BIN)/python -m pytest -m cluster tests/cluster

.PHONY: image-test
image-test: $(BIN)/.all ## Run the Dockerfile's steps for cpu and desk in a Debian root, and score images in it; needs root
	@ops/dev/prerequisites.sh image
	$(BIN)/python -m ops.dev.image_root cpu
	$(BIN)/python -m ops.dev.image_root desk

.PHONY: servers
servers: server-prerequisites $(BIN)/.servers ## Start Kafka, Redis and S3 on loopback for trying things, and write .run/dev.yaml
	@$(BIN)/python -m ops.dev start

.PHONY: servers-stop
servers-stop: ## Stop them
	@test ! -x $(BIN)/python || $(BIN)/python -m ops.dev stop

.PHONY: constraints
constraints: $(BIN)/.dev ## Compile constraints.txt afresh, with the newest versions
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate \
	    --custom-compile-command "make constraints" --extra dev --extra train --extra serve \
	    --output-file constraints.txt pyproject.toml

.PHONY: clean
clean: servers-stop ## Stop the servers and remove the environment and all data
	rm -rf .venv .run

.PHONY: prerequisites server-prerequisites
prerequisites:
	@ops/dev/prerequisites.sh
server-prerequisites:
	@ops/dev/prerequisites.sh servers

# helm and the other programs that check deploy/: fetched and built once, in about a minute.
.PHONY: deployment-tools
deployment-tools: $(BIN)/.all
	@$(BIN)/python -m ops.dev.deployment_tools

# The first python3 of these that is new enough.
python = $(shell for candidate in python3 python3.13 python3.12 python3.11; do \
    $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$candidate; break; }; done)

$(BIN)/python:
	@test -n "$(python)" || { echo "error: Sluice needs Python 3.11 or newer, and no python3 on the PATH is" >&2; exit 1; }
	@$(python) -c 'import ensurepip' 2>/dev/null || { \
	    echo "error: $(python) cannot make environments: install its venv package (Debian: apt-get install python3-venv)" >&2; exit 1; }
	$(python) -m venv .venv

# What runs, with the desk and what the demo shows: no torch. Installed again when the dependencies change.
$(BIN)/.runtime: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Sluice into .venv (a minute, the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $@

# What servers need besides, for those who only want to try things.
$(BIN)/.servers: $(BIN)/.runtime
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[servers]'
	@touch $@

# What tests and linters need besides.
$(BIN)/.dev: $(BIN)/.runtime
	@echo "Installing the tools for development into .venv (a minute or two, the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# What training needs, whose tests and types are checked like all others: torch, some 5 GB on Linux.
$(BIN)/.all: $(BIN)/.dev
	@echo "Installing what training needs into .venv (minutes, the first time: torch is large) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train]'
	@touch $@
