# The commands of this project. `make serve` and `make test` do all the set-up they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: serve install dev test lint soak bench lock clean
.DEFAULT_GOAL := serve

serve: install  ## gateway, lab and tracking on http://127.0.0.1:4000
	@exec $(BIN)/promptyard serve

install: $(VENV)/.runtime

dev: $(VENV)/.dev

test: dev  ## everything: lint, types, tests with real Redis, PostgreSQL and a browser
	@$(BIN)/python -m tests.services.check
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered

soak: dev  ## the proofs that need load, time or size, in full
	PROMPTYARD_TEST_SOAK=1 $(BIN)/python -m pytest --timeout=3600 -m soak

bench: dev  ## our figures beside MLflow's gateway and LiteLLM's proxy, in one run
	$(BIN)/python -m tests.bench

# The stamp files make a second `make serve` start at once. The lock names every file by hash and
# already holds every dependency, so nothing is resolved: --no-deps.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Promptyard needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

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
lock:
	$(LOCK) --output-file requirements.lock
	$(LOCK) --group dev --output-file requirements-dev.lock

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .coverage
