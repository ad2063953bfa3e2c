# `make demo` and `make test` each do all their own set-up: python3 (3.11 or newer), make and git are enough.
# Another interpreter: make PYTHON=python3.12 test. pip uses whatever index it is configured for.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install
INSTALLED := $(VENV)/.installed

.PHONY: demo test fast lint format docs figures soak install clean

demo: $(INSTALLED)
	$(BIN)/cfx demo

test: lint
	$(BIN)/pytest --numprocesses auto --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# One room, while you work on it: make fast ROOM=counterfactual, or ROOM=commands/bench.
fast: $(INSTALLED)
	@test -d "cfx/$(ROOM)" -a -n "$(ROOM)" || { echo "make fast: expected ROOM=<folder of cfx/>, got '$(ROOM)'" >&2; exit 2; }
	$(BIN)/ruff check cfx/$(ROOM) $(wildcard tests/$(ROOM))
	$(BIN)/ruff format --check cfx/$(ROOM) $(wildcard tests/$(ROOM))
	$(BIN)/mypy cfx/$(ROOM)
	$(BIN)/lint-imports
	$(BIN)/pytest tests/$(ROOM)

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages that are made from the code.
docs: $(INSTALLED)
	$(BIN)/cfx config > docs/configuration.md.new
	mv docs/configuration.md.new docs/configuration.md

# The README's tables, from what the runs in docs/ left, and its picture, from a demo run now (half a minute).
figures: $(INSTALLED)
	$(BIN)/cfx demo
	$(BIN)/python docs/figures.py

# What is measured rather than tested, an hour and more on two cores: sweeps whose figures docs/ reports.
soak: $(INSTALLED)
	$(BIN)/python docs/devdocs/inversion.py
	$(BIN)/python docs/devdocs/floor.py
	$(BIN)/python docs/devdocs/strength.py configs/bench/brain64-counterfactual.yaml 64
	$(BIN)/python docs/devdocs/normalise.py

install: $(INSTALLED)

# torch goes first and by its exact version, so that a local build of it (CPU only, say) is taken where pip knows one.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("cfx needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
