# make run   sets everything up and runs the main job
# make serve serves the shipped model on port 8000
# make test  sets everything up and runs every check
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: setup run serve test lint clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[serve,mpi,dev]"
	touch $@

run: setup
	$(BIN)/wingspan run models/tiny --ranks 8 --dtype float32 --check \
	  --prompt "def main():" --prompt "The quick" --prompt "import " --max-new-tokens 48

serve: setup
	$(BIN)/wingspan serve models/tiny --ranks 8

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
