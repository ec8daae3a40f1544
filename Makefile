# make demo, make test: each does all the set-up on a fresh machine. Needs Python 3.11+, make and the package registries.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install browser demo test check bench chaos clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Watchkeeper needs Python 3.11 or newer; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	$(BIN)/watchkeeper model --fetch
	touch $@

# A Chromium for the browser tests: the one that is there, or Debian's, or playwright's own.
browser: install
	@command -v chromium chromium-browser google-chrome >/dev/null \
	  || { apt-get update -qq && apt-get install -qq -y chromium >/dev/null; } \
	  || $(BIN)/playwright install chromium

demo: install
	$(BIN)/watchkeeper demo

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Who waits for a server leaves a processor idle: one test file more at a time than there are processors. Then those which say
# how long something takes, or use the whole machine: alone.
test: check browser
	$(BIN)/pytest -m 'not alone' -n $$(($$($(BIN)/python -c 'import os; print(os.cpu_count())') + 1)) --dist loadfile --no-loadscope-reorder
	$(BIN)/pytest -m alone

bench: install
	$(BIN)/python tests/benchmarks/table.py

# Half an hour and more: 210 faults (CHAOS_FAULTS), at random (CHAOS_SEED repeats a run), under traffic. The suite has 18 of them.
chaos: install
	CHAOS_FAULTS=$${CHAOS_FAULTS:-210} $(BIN)/pytest tests/journey/test_chaos.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
