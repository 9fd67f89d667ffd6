# `make help` lists the targets.  A bare Debian has no make: ./demo and ./test need none.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
UV := .venv/uv/bin/uv
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: environment
environment: ## the Python environment in .venv, with everything for development
	@source scripts/lib/say.sh; source scripts/lib/python.sh; \
	environment_current requirements-dev.lock || build_environment requirements.lock requirements-dev.lock

.PHONY: check
check: environment ## format, lint, types, import contracts, the quick unit tests: about a minute
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@MYPYPATH=tests $(BIN)/mypy --no-error-summary --explicit-package-bases tests/testbed
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/pytest -q -n 2 -m "not slow" tests/unit

.PHONY: format
format: environment ## rewrite the code in the one format
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

.PHONY: test
test: ## every test, against the real parts (needs root)
	@./test

.PHONY: demo
demo: ## from a clone to a running instance
	@./demo

.PHONY: bench
bench: environment ## the side-by-side tables, against what a user would pick instead (needs root)
	@shopt -s nullglob; for table in benchmarks/*; do \
	  [[ -f $$table && -x $$table ]] || continue; echo "== $$table"; PATH="$$PWD/$(BIN):$$PATH" "$$table"; done

.PHONY: lock
lock: environment ## newest versions that pyproject.toml allows, into the lock files
	@$(COMPILE) pyproject.toml --extra postgresql --output-file requirements.lock
	@$(COMPILE) pyproject.toml --extra postgresql --group dev --constraints requirements.lock --output-file requirements-dev.lock
	@echo uv | $(COMPILE) - --output-file scripts/bootstrap.lock
	@! grep -En 'https?://|index-url' requirements.lock requirements-dev.lock scripts/bootstrap.lock

.PHONY: clean
clean: ## remove what was built here (the demo's state is removed by ./demo clean)
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist var/test
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
