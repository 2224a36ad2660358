# Every target works on a fresh clone that has Python 3.11 or later, pip and make, and nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# The first of these that the machine has; `make demo PYTHON=/path/to/python3.12` overrides.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
PYTEST := $(BIN)/python -m pytest
# Compiled modules are kept: the tests start hundreds of processes, and compiling doubles what a start costs.
unexport PYTHONDONTWRITEBYTECODE
CODE := $(wildcard src tests bench examples)
# What needs no server and no process of its own.
FAST := tests/unit tests/architecture tests/docs tests/telemetry
# The constraint files are complete, so nothing is resolved: a release made after them cannot break an install.
PINS := --no-deps --require-hashes --requirement
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# With pinned build tools too: in isolation pip would build with the newest there are.
INSTALL_OURS = $(PIP_INSTALL) $(PINS) requirements/build.txt && $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
LOCK := $(COMPILE) pyproject.toml
# A server of MLflow for the tests, apart from the project: its packages are heavy, and its pins would bind ours.
# The environment variable MLFLOW_VENV puts it elsewhere, where several checkouts can share it.
MLFLOW := $(or $(MLFLOW_VENV),.venv-mlflow)
# What MLflow depends on for data science and containers; `mlflow server` does without.
MLFLOW_WITHOUT := contourpy cycler docker fonttools joblib kiwisolver matplotlib mlflow-tracing narwhals pillow \
	prettytable pyarrow pyparsing pywin32 scikit-learn scipy skops threadpoolctl waitress wcwidth

.PHONY: help demo test check bench lock mlflow format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime ## run the main job end to end on the embedded store
	@$(BIN)/pilothouse demo

test: $(VENV)/.dev mlflow ## run the whole test suite, real PostgreSQL and MLflow included
	@$(PYTEST) -n 2 --dist worksteal

check: $(VENV)/.dev ## format, lint, types, import rules, dependencies, dead code, fast tests
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/mypy $(CODE)
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/deptry src
	@$(BIN)/vulture $(CODE)
	@$(PYTEST) -n 2 --dist worksteal -m "not slow" $(FAST)

bench: $(VENV)/.dev ## run the benchmarks
	@$(BIN)/python -m bench

lock: $(VENV)/.dev ## write requirements/ anew after a change of dependencies (LOCK_FLAGS=--upgrade for newer versions)
	@$(LOCK) $(LOCK_FLAGS) --output-file requirements/runtime.txt
	@$(LOCK) $(LOCK_FLAGS) --all-extras --group dev --constraints requirements/runtime.txt --output-file requirements/dev.txt
	@$(COMPILE) $(LOCK_FLAGS) --group build --constraints requirements/dev.txt --output-file requirements/build.txt
	@$(COMPILE) requirements/mlflow.in $(LOCK_FLAGS) $(MLFLOW_WITHOUT:%=--no-emit-package %) --output-file requirements/mlflow.txt

# Without it the test of it is skipped, and fails in CI.
mlflow: $(VENV)/.dev ## install the MLflow server that a test talks to
	@$(MAKE) --quiet $(MLFLOW)/.installed || echo "MLflow could not be installed; its test will say so" >&2

format: $(VENV)/.dev ## format the code and fix what can be fixed mechanically
	@$(BIN)/ruff check --fix $(CODE)
	@$(BIN)/ruff format $(CODE)

clean: ## remove the virtual environment, caches and build output
	@rm -rf $(VENV) .venv-mlflow build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(or $(PYTHON),python3) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Pilothouse needs Python 3.11 or later; name one with PYTHON=/path/to/python3")'
	@$(PYTHON) -m venv $(VENV)

# Each stamp stands for one finished install and is older than pyproject.toml or its constraints when it must be redone.
$(VENV)/.runtime: pyproject.toml requirements/runtime.txt requirements/build.txt | $(BIN)/python
	@echo "Installing Pilothouse into $(VENV)"
	@$(PIP_INSTALL) $(PINS) requirements/runtime.txt
	@$(INSTALL_OURS)
	@touch $@

$(VENV)/.dev: pyproject.toml requirements/dev.txt requirements/build.txt | $(BIN)/python
	@echo "Installing Pilothouse and its development tools into $(VENV)"
	@$(PIP_INSTALL) $(PINS) requirements/dev.txt
	@$(INSTALL_OURS)
	@touch $@

$(MLFLOW)/.installed: requirements/mlflow.txt
	@echo "Installing an MLflow server into $(MLFLOW)"
	@$(BIN)/python -m venv --without-pip --clear $(MLFLOW)
	@$(BIN)/uv pip install --quiet --python $(MLFLOW)/bin/python $(PINS) $< \
		|| $(BIN)/python -m pip --python $(MLFLOW)/bin/python install --quiet --disable-pip-version-check $(PINS) $<
	@touch $@
