# Two commands for a machine with Python 3.10 or newer, git and make:
#   make quickstart   installs into .venv and runs the digits job
#   make test         installs the dev extra into .venv and runs linter, type checker and tests
#   make test-lowest  runs the tests with the lowest supported PyTorch, in .venv-lowest
# Both may be repeated. Another interpreter: make quickstart PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
LOWEST_TORCH := "torch==2.9.*" "torchvision==0.24.*"

.PHONY: quickstart test test-lowest lint clean
.DELETE_ON_ERROR:

quickstart: $(VENV)/.installed
	$(BIN)/python -m gnnrl_lightning fit --config experiments/digits.yaml

test: lint
	$(BIN)/python -m pytest --cov --cov-report=term

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@ $(VENV)/.installed

test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest

$(LOWEST)/.installed: pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet $(LOWEST_TORCH) --editable ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) $(LOWEST) .pytest_cache .ruff_cache .coverage
