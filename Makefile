# What this repository can do. `make help` lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
VENV := .venv
BIN := $(VENV)/bin
FLOORS := supervisor hookbin sidecars runtime selinux
STAMP := $(VENV)/.made
WHEEL_VENV := build/wheel-venv
LAB := bash tests/lab/lab.sh --
SUITE := bash tests/lab/suite.sh
# Measurements to run, for example: make bench BENCH="start signer"
BENCH ?=
# Scenarios of make chaos, for example: make chaos CHAOS="storm matrix"
CHAOS ?=
# Agents of make test-agents, for example: make test-agents AGENT=codex
AGENT ?=
# Tests to run, for example: make test TESTS=tests/podman/test_life.py; JOBS=1 runs them one after the other
TESTS ?= tests

help: ## Show this help
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Run one container through all of it, with stand-in upstreams; installs what is missing
	@bash demo/demo.sh

dev: $(STAMP) ## Build .venv with the program at .venv/bin/terok, running from these sources

$(STAMP): pyproject.toml tests/lab/venv.sh
	PYTHON=$(PYTHON) bash tests/lab/venv.sh $(VENV) $(FLOORS)
	@touch $@

# The lab's user can't write byte code beside sources of another owner, and hooks would compile theirs at each start.
bytecode: dev
	@$(BIN)/python -m compileall -q $(wildcard $(FLOORS))

check: lint types house ## Lint, types, house rules: ruff, mypy --strict, floors (each alone: make lint, types, house)

lint: dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: dev
	$(BIN)/mypy

house: dev
	$(BIN)/python -m pytest -q tests/unit/test_house.py

test-unit: dev ## Unit tests: no root, no Podman
	$(BIN)/python -m pytest -q -n $${JOBS-$$(nproc)} --dist worksteal tests/unit

packages:
	@bash tests/lab/packages.sh test

test: packages bytecode ## Every test, those against real rootless Podman too: about twelve minutes (TESTS=path for some)
	@$(SUITE) $(CURDIR)/$(BIN)/python $(TESTS)

test-wheel: dev ## The tests against the built wheel in a fresh virtual environment
	rm -rf $(WHEEL_VENV) dist build/lib
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/python -m pip install --quiet "$$(echo dist/*.whl)[dev]"
	@$(SUITE) $(CURDIR)/$(WHEEL_VENV)/bin/python $(TESTS)

deb: dev ## Build dist/terok-host_VERSION_all.deb, which installs on Debian 13 with Debian's own Python packages
	@PYTHON=$(BIN)/python bash packaging/deb.sh dist

test-selinux: dev ## The wheel in an SELinux-enforcing Debian 13 guest, under QEMU's emulation (as root)
	rm -rf build/selinux-dist build/lib
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/selinux-dist .
	bash tests/selinux/run.sh build/selinux-dist/*.whl

test-debian13: dev ## The built wheel and the tests inside Debian 13 (podman 5, pasta, Python 3.13); as root
	bash tests/lab/debian13.sh $(TESTS)

test-agents: packages bytecode ## Real agents from npm with stand-in models, headless and under `terok start` at a terminal; downloads 1.5 GB to build/agents
	bash tests/lab/agents.sh build/agents
	$(LAB) $(CURDIR)/$(BIN)/python -m pytest -q -s -p no:cacheprovider tests/podman/agents.py tests/podman/agents_clients.py tests/podman/agents_start.py $(if $(AGENT),-k $(AGENT))

bench: dev bytecode ## Measure against the budgets of the design, write results and docs/performance.md: 15 minutes (BENCH=part)
	@bash bench/install.sh
	@new=$$(mktemp) && chmod 666 $$new && $(LAB) bash -c 'PATH+=:$(CURDIR)/build/bench-bin; exec "$$@"' bench $(CURDIR)/$(BIN)/python -m bench.run --output $$new $(BENCH); \
	  code=$$?; if [ -s $$new ]; then $(BIN)/python -m bench.page $$new || code=1; fi; rm -f $$new; exit $$code

bench-page: dev ## Draw docs/performance.md again from the committed results
	@$(BIN)/python -m bench.page

chaos: dev packages bytecode ## Kill, stop, starve and storm real containers, write docs/reliability.md: 15 minutes (CHAOS=scenario)
	@bash tests/lab/packages.sh chaos && bash tests/chaos/wheels.sh
	@new=$$(mktemp) && chmod 666 $$new && { $(LAB) $(CURDIR)/$(BIN)/python -m tests.chaos.run --output $$new $(CHAOS); code=$$?; \
	  $(BIN)/python -m tests.chaos.page $$new; rm -f $$new; exit $$code; }

docs: dev ## Build the documents as a site in build/site; a warning is an error
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'mkdocs-material>=9.5'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

clean: ## Remove what `make` built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find $(FLOORS) tests bench demo -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help demo dev packages bytecode check lint types house test-unit test test-wheel deb test-debian13 test-selinux test-agents bench bench-page chaos docs clean
