# make run   sets everything up and runs the main job
# make serve serves the shipped model on port 8000
# make test  sets everything up and runs every check
# make gpu   runs all that one GPU can show, in ten minutes at most, from this checkout (docs/gpu.md)
# make docs  runs the pages of docs/ that start ranks, as they are typed; `make test` runs the others
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: setup run serve test docs gpu lint clean

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

docs: setup
	$(BIN)/python -m pytest -m ranks_of_pages tests/cli/test_pages_run.py

# With the torch that is there: a machine with a GPU has its own, and perhaps no network to set another up from.
gpu:
	PYTHONPATH=src $(or $(wildcard $(BIN)/python),$(PYTHON)) -m benchmarks.gpu

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
