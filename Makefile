# For a machine with Python 3.10 or newer, git and make:
#   make quickstart   installs into .venv and prunes a network on handwritten digits
#   make test         installs the dev extra into .venv and runs linter, type checker and tests, but for the slow ones
#   make test COVERAGE=1  the same with coverage and its floor, a third slower; .ci/run does so
#   make test-all     runs the slow tests, too, and random tests with all of their examples, with coverage
#   make test-lowest  runs the tests with the lowest supported PyTorch, in .venv-lowest
#   make docs         builds the documentation into build/site
# All may be repeated. Another interpreter: make quickstart PYTHON=python3.12

PYTHON ?= python3
# Processes that share the tests; a file's tests stay together, because they share what they have trained.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
LOWEST_TORCH := "torch==2.9.*" "torchvision==0.24.*"
PARALLEL := -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=15
COVERED := --cov --cov-report=term

.PHONY: quickstart test test-all test-lowest lint docs clean
.DELETE_ON_ERROR:

quickstart: $(VENV)/.installed
	$(BIN)/python -m gnnrl_lightning fit --config experiments/quickstart.yaml

test: lint
	$(BIN)/python -m pytest $(PARALLEL) $(if $(COVERAGE),$(COVERED))

test-all: lint
	$(BIN)/python -m pytest $(PARALLEL) -m "not gpu" --hypothesis-profile=full $(COVERED)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@ $(VENV)/.installed $(VENV)/.installed-docs

test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest $(PARALLEL)

$(LOWEST)/.installed: pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet $(LOWEST_TORCH) --editable ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) $(LOWEST) build .pytest_cache .ruff_cache .coverage .coverage.*
