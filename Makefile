# What this repository can do. `make help` lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
VENV := .venv
BIN := $(VENV)/bin
FLOORS := supervisor hookbin sidecars runtime selinux
STAMP := $(VENV)/.made

help: ## Show this help
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

dev: $(STAMP) ## Build .venv with the program at .venv/bin/terok, running from these sources

$(STAMP): pyproject.toml tests/lab/venv.sh
	PYTHON=$(PYTHON) bash tests/lab/venv.sh $(VENV) $(FLOORS)
	@touch $@

check: dev ## Lint, types, floors: ruff, mypy --strict, import contracts
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_house.py

test-unit: dev ## Unit tests: no root, no Podman
	$(BIN)/python -m pytest -q tests/unit

test: dev ## Every test: unit tests, then tests against real rootless Podman
	bash tests/lab/lab.sh -- $(CURDIR)/$(BIN)/python -m pytest -q tests

clean: ## Remove what `make` built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: help dev check test test-unit clean
