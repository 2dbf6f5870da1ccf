# The commands of this project. `make serve` and `make test` do all the set-up they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

# Two workers, each with servers of its own. A module stays whole; the order stays ours: the slow ones come first.
TWO    := -n 2 --dist loadfile --no-loadscope-reorder
# What measures how long a stop takes runs after them, alone.
ALONE  := tests/acceptance/test_serve.py

.PHONY: serve install dev test lint soak bench lock clean help
.DEFAULT_GOAL := serve

serve: install  ## gateway, lab and tracking on http://127.0.0.1:4000
	@exec $(BIN)/promptyard serve

install: $(VENV)/.runtime  ## the set-up of `make serve` alone

dev: $(VENV)/.dev  ## the set-up of `make test` alone

test: lint  ## everything: lint, types, tests with real Redis, PostgreSQL and a browser
	@$(BIN)/python -m tests.services.check
	$(BIN)/python -m pytest $(TWO) $(ALONE:%=--ignore=%) --cov --cov-report=
	$(BIN)/python -m pytest $(ALONE) --cov --cov-append --cov-report=term:skip-covered

lint: dev  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

soak: dev  ## the proofs that need load, time or size, in full
	PROMPTYARD_TEST_SOAK=1 $(BIN)/python -m pytest --timeout=3600 -m soak

bench: dev  ## our figures beside MLflow's gateway and LiteLLM's proxy, in one run
	$(BIN)/python -m tests.bench

# The stamp files make a second `make serve` start at once. The lock names every file by hash and
# already holds every dependency, so nothing is resolved: --no-deps.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Promptyard needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }  # half a venv would look like a whole one next time

$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(PIP) install --quiet --no-deps --require-hashes -r requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(PIP) install --quiet --no-deps --require-hashes -r requirements-dev.lock
	@touch $@

# Universal (Linux, macOS; Python 3.11+), with hashes, without index addresses.
LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
        --no-emit-index-url --quiet pyproject.toml --group build --group model
lock:  ## the newest versions pyproject.toml allows (needs uv)
	$(LOCK) --output-file requirements.lock
	$(LOCK) --group dev --output-file requirements-dev.lock

clean:  ## forget every set-up and cache; data/ stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.*

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*  ## /  make \1: /p' Makefile
