# Every target sets up .venv by itself; setting up is a no-op until pyproject or constraints change.
# pip would compile all modules of all packages for a minute; the few that are used compile on use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

.PHONY: setup repro test lint bench

setup: $(VENV)/.done

$(VENV)/.done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: got $$($(PYTHON) --version); wanted Python 3.11 or newer; run make PYTHON=python3.x $(MAKECMDGOALS)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "error: could not make $(VENV); on Debian: apt-get install python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[test]'
	@touch $@

repro: setup
	$(BIN)/python -m stages.reproduce

test: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: setup
	ruff check . && ruff format --check . && lint-imports && mypy

bench: setup
	$(BIN)/python -m benchmarks
