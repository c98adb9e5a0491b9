# Needs only make and a Python of 3.11 or later: `make demo PYTHON=python3.12` chooses another.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Stable-Baselines3, for `make bench` alone: its requirements must not bind ours.
SB3_VENV := .venv-sb3
SB3_INSTALLED := $(SB3_VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test check format docs bench faults clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

demo: $(INSTALLED) ## Distil four shipped experts into one network, transfer it to a fifth game
	$(BIN)/actor-mimic run demo

test: $(INSTALLED) ## Run every test
	$(BIN)/python -m pytest -q -n auto --dist worksteal

check: $(INSTALLED) ## Formatting, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(INSTALLED) ## Format the code and apply the safe fixes of the linter
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(INSTALLED) ## Build the documentation into docs/_build, warnings are errors
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

bench: $(INSTALLED) $(SB3_INSTALLED) ## Measure speed and memory, and Stable-Baselines3 beside them
	$(BIN)/python -m benchmarks

faults: $(INSTALLED) ## Break runs in every way that is promised to be survived, and count
	$(BIN)/python -m benchmarks.faults

clean: ## Remove the virtual environments and caches; runs stay
	rm -rf $(VENV) $(SB3_VENV) docs/_build .pytest_cache .ruff_cache .import_linter_cache

# The stamp is written last, so that an interrupted installation is done again.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "actor-mimic needs Python 3.11 or later: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[all,dev]'
	@touch $@

$(SB3_INSTALLED): benchmarks/requirements-sb3.txt
	$(PYTHON) -m venv $(SB3_VENV)
	$(SB3_VENV)/bin/python -m pip install --disable-pip-version-check -q -r $<
	@touch $@
