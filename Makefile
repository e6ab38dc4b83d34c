# nodeagent. Each target does its own set-up: a .venv from requirements.lock, made anew when that changes.
#
#   make run ARGS='--set agent.mode=observe'      make test ARGS='-k journal'      make PYTHON=python3.12 test

PYTHON ?= python3
ARGS ?=
KUBELET_CACHE ?= $(HOME)/.cache/nodeagent-kubelet
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run install uninstall test test-episodes vm vm-test e2e-kubelet bench bench-nic bench-collect bench-soak bench-long bench-tide eval colocate lint lock manifest proto proto-image clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

run: $(STAMP) ## start the agent on this node (root; nothing to configure)
	@exec $(BIN)/nodeagent run $(ARGS)

install: ## the program and its units (PREFIX=/usr/local DESTDIR= WHEELS=; see systemd/install.sh)
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' PYTHON='$(PYTHON)' WHEELS='$(WHEELS)' sh systemd/install.sh

uninstall: ## give all back and remove what `make install` has put there; settings and state stay
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' sh systemd/install.sh uninstall

test: $(STAMP) ## all tests; those that need root or cgroups say why they are skipped
	@exec $(BIN)/python -m pytest $(ARGS)

test-episodes: $(STAMP) ## whole episodes of interference with a real agent (root, 10 min of a quiet machine)
	@NODEAGENT_TEST_EPISODES=1 exec $(BIN)/python -m pytest tests/live/test_interference_agent.py $(ARGS)

vm-test: $(STAMP) ## the live tests in emulated machines of all kinds (ARGS=--short: v2, the core)
	@exec $(BIN)/python -m tests.vm test $(ARGS)

vm: $(STAMP) ## one command in such a machine with nodeagent installed: make vm ARGS='-- nodeagent doctor'
	@exec $(BIN)/python -m tests.vm run --project $(ARGS)

e2e-kubelet: $(STAMP) ## one live test with a real kubelet, built once (10 min, Debian 12; KUBELET_CACHE=DIR)
	@kubelet=$$(tests/e2e_kubelet/build.sh "$(KUBELET_CACHE)" | tail -1) && \
	    NODEAGENT_E2E_KUBELET="$$kubelet" exec $(BIN)/python -m pytest tests/e2e_kubelet $(ARGS)

bench: $(STAMP) ## the figures, as ratios measured in one run
	@exec $(BIN)/python -m tests.bench $(ARGS)

bench-nic: $(STAMP) ## those of traffic shaping, in network namespaces (ARGS=--quick; or names: two ceilings)
	@exec $(BIN)/python -m tests.bench.nic $(ARGS)

bench-collect: $(STAMP) ## those of the reference controller with 2,000 agents (ARGS='--agents 500 --seconds 10')
	@exec $(BIN)/python -m tests.bench.collect $(ARGS)

bench-soak: $(STAMP) ## a day of broken links, new certificates and clients, in 10 min: what is left of it (ARGS=--quick)
	@exec $(BIN)/python -m tests.bench.soak $(ARGS)

bench-long: $(STAMP) ## 30 min of pods, reloads, watchers and full CPUs: is anything lost? (root; ARGS='--quick --json')
	@exec $(BIN)/python -m tests.bench.endurance $(ARGS)

bench-tide: $(STAMP) ## two SYNTHETIC days lent by nodeagent and by its peers' formulas, 2 min (ARGS='--trace FILE')
	@exec $(BIN)/python -m tests.bench tide $(ARGS)

eval: $(STAMP) ## how well interference is found and ended, replayed (ARGS=--quick: live; --record DIR: all anew)
	@exec $(BIN)/python -m tests.bench.eval $(ARGS)

colocate: $(STAMP) ## latency and utilisation: online beside Batch, 8 variants (20 min; ARGS=--quick: 3; build/colocate.png)
	@exec $(BIN)/python -m tests.bench.colocate --keep build/colocate.json --plot build/colocate.png $(ARGS)

lint: $(STAMP) ## ruff, mypy, import contracts, protocol (also part of make test)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint proto
	$(BIN)/buf breaking proto --against proto/nodeagent-v1.binpb

proto-image: $(STAMP) ## take the protocol as it is for what later changes must not break
	$(BIN)/buf build proto --exclude-source-info -o proto/nodeagent-v1.binpb

proto: $(STAMP) ## generate nodeagent/v1 and nodeagent/cri/v1 from proto/
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=. --pyi_out=. --grpc_python_out=. \
	    proto/nodeagent/v1/*.proto
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=. --pyi_out=. proto/nodeagent/cri/v1/*.proto

lock: ## resolve requirements.lock anew (uv from PATH, else in a throw-away virtualenv)
	@set -e; uv=$$(command -v uv) || { dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	    $(PYTHON) -m venv "$$dir"; "$$dir/bin/pip" install -q uv; uv="$$dir/bin/uv"; }; \
	"$$uv" pip compile --quiet --upgrade --universal --python-version 3.11 --extra test --generate-hashes \
	    --no-emit-index-url --custom-compile-command 'make lock' -o requirements.lock pyproject.toml; \
	"$$uv" pip compile --quiet --universal --python-version 3.11 --extra kubernetes --extra systemd \
	    --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' -c requirements.lock \
	    -o daemonset/requirements.txt pyproject.toml; \
	printf 'hatchling\nsetuptools\n' | "$$uv" pip compile --quiet --universal --python-version 3.11 --no-annotate \
	    --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' -c requirements.lock \
	    -o daemonset/build-requirements.txt -

manifest: $(STAMP) ## render daemonset/nodeagent.yaml from daemonset/chart
	@helm=$$($(BIN)/python -m tests.packaged helm) && { \
	    sed '/^---/,$$d' daemonset/nodeagent.yaml && \
	    "$$helm" template nodeagent daemonset/chart --namespace nodeagent --set namespace.create=true; \
	} > daemonset/nodeagent.yaml.new && mv daemonset/nodeagent.yaml.new daemonset/nodeagent.yaml

clean: ## remove what the other targets made
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find nodeagent tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml requirements.lock
	@if command -v uv >/dev/null; then \
	    uv venv --quiet --clear --python '>=3.11' .venv && \
	    uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock && \
	    uv pip install --quiet --python $(BIN)/python --no-deps -e .; \
	else \
	    $(MAKE) --no-print-directory .venv-by-pip; \
	fi
	@touch $@

.PHONY: .venv-by-pip
.venv-by-pip:
	@command -v $(PYTHON) >/dev/null || { \
	    echo 'make: $(PYTHON) not found. Install Python 3.11 or newer: apt-get install python3 python3-venv' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "make: nodeagent needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) -V 2>&1)." \
	    'Name a newer one: make PYTHON=/path/to/python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo 'make: this Python cannot make a virtualenv. Install its venv module: apt-get install python3-venv' >&2; \
	    exit 1; }
	@echo 'setting up .venv (once, about a minute) ...'
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
