# Each target makes what it needs; names are relative, so that the path may hold spaces.
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
PYTEST := $(PY) -m pytest --numprocesses 2 --dist loadgroup --no-loadscope-reorder
SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))
FIND_PYTHON := for p in $(PYTHON) python3 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c '$(SUITABLE)' 2>/dev/null && echo $$p && break; done

.PHONY: help demo test test-slow check bench clean

help:
	@echo "make demo       install, then the whole life of a model on this machine, with a web page"
	@echo "make test       install with the test tools, then the tests that take seconds"
	@echo "make test-slow  those that take minutes: long runs, kills, clusters of several machines"
	@echo "make check      lint, format, types, direction of imports"
	@echo "make bench      benchmarks, written to docs/benchmarks.md's commands"
	@echo "make clean      remove what the other targets made"

demo: $(VENV)/.installed
	$(PY) -m llmray demo

test: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.installed-dev
	$(PYTEST) -m slow

check: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/.installed-dev
	set -e; for script in $$(grep -l __main__ benchmarks/*.py); do $(PY) "$$script"; done

clean:
	rm -rf $(VENV) build dist *.egg-info runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(PY):
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then \
		echo "llmray needs Python 3.11 or 3.12; found: $$(python3 --version 2>&1 || echo no python3)." >&2; \
		echo "Install one (Debian: apt install python3.11 python3.11-venv) or name it: make demo PYTHON=/path/to/python3.12" >&2; \
		exit 1; \
	fi; \
	"$$python" -m venv $(VENV) || { \
		rm -rf $(VENV); \
		echo "$$python has no venv module (Debian: apt install python3-venv)." >&2; exit 1; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@ $(VENV)/.installed
