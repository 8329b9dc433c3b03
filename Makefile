# Everything is set up from nothing but Python >= 3.10; each target may be run again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup demo test check format bench clean

help:  ## Show the targets.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: $(VENV)/.stamp  ## Make .venv with the exact versions of constraints.txt.

$(VENV)/.stamp: pyproject.toml constraints.txt
	@echo "== setting up $(VENV) (about 6 GB, a few minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup  ## Index real images, a clip and texts, search them by words and by picture.
	$(BIN)/python tools/demo.py --out demo-output

test: check  ## Style, types, and all tests.
	@echo "== tests"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadgroup

check: setup  ## Style and types.
	@echo "== ruff"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo "== mypy"
	$(BIN)/mypy

format: setup  ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## Run the benchmarks; tables on the terminal, JSON in benchmarks/results.
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/stores.py
	$(BIN)/python benchmarks/ingest.py
	$(BIN)/python benchmarks/search.py

clean:  ## Remove what the targets made.
	rm -rf $(VENV) demo-output dist build
