# The commands of this project. Each creates the environment it needs.
#   make demo      the main job on synthetic charts, with two CPU cores
#   make test      the tests that CI runs, about ten minutes
#   make lint      ruff and mypy
#   make torture   the long tests
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint torture format clean

demo: $(READY)
	$(BIN)/python tools/demo.py

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not torture" tests

torture: $(READY)
	TORTURE_RESULTS=benchmarks/results OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -n 2 -m torture --timeout 3600 tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Install the pinned torch first: given a version range, pip would download gigabytes of CUDA.
$(READY): constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $(READY)

clean:
	rm -rf .venv build *.egg-info
