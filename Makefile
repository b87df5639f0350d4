# Everything here works on a machine that has Python >= 3.11, make and a package index.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.setup-stamp
EXTRAS := models,dask,external,dev

export MPLBACKEND := Agg

.PHONY: help setup demo test test-all laws processors lint types bench worlds zoo judges calibration mutants clean

help:
	@echo "make setup     the environment alone; .venv/bin/pertstack works afterwards"
	@echo "make demo      simulate a study, train, stack, judge; writes demo/study/report.html"
	@echo "make test      lint, types, tests, README commands, a small study (under 20 minutes on 2 cores)"
	@echo "make test-all  also the slow tests (faults, external environments)"
	@echo "make laws      every law on 2,000 new random examples (LAW_EXAMPLES=N); before an issue is called done"
	@echo "make processors  the tests that hang on rounding, with other vector units, kernels and thread counts"
	@echo "make bench | worlds | zoo | judges | calibration | mutants    what stands behind the docs"

setup: $(STAMP)

$(STAMP): constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "No python3 found. Install Python 3.11 or newer, or run: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than Python 3.11. Run: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt hatchling editables
	$(BIN)/python -m pip install --quiet --no-build-isolation --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/pertstack demo demo

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

test: lint types
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" -q

test-all: lint types
	$(BIN)/python -m pytest -n 2 --dist loadfile -q

laws: $(STAMP)
	HYPOTHESIS_PROFILE=laws LAW_EXAMPLES=$(or $(LAW_EXAMPLES),2000) $(BIN)/python -m pytest -n 2 -q -m "not slow" $(shell grep -rl "import.*given" tests)

processors: $(STAMP)
	$(BIN)/python tests/processors.py

bench: $(STAMP)
	$(BIN)/python benchmarks/store.py
	$(BIN)/python benchmarks/bench.py

worlds: $(STAMP)
	$(BIN)/python benchmarks/worlds.py

zoo: $(STAMP)
	$(BIN)/python benchmarks/zoo.py

calibration: $(STAMP)
	$(BIN)/python benchmarks/calibration.py

mutants: $(STAMP)
	$(BIN)/python benchmarks/mutants.py

judges:
	$(PYTHON) -m venv .venv-judges
	.venv-judges/bin/python -m pip install --quiet --upgrade pip
	.venv-judges/bin/python -m pip install --quiet --editable . pytest cell-eval==0.8.2 cell-eval2==0.20.0 scperteval==0.2.0
	.venv-judges/bin/python -m pytest -q tests/judges

clean:
	rm -rf $(VENV) .venv-judges demo .pytest_cache .mypy_cache .ruff_cache
