# Everything here works on a machine that has Python >= 3.11, make and a package index.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.setup-stamp
EXTRAS := models,dask,external,docs,dev
AXE    := $(VENV)/axe/node_modules/axe-core/axe.min.js

export MPLBACKEND := Agg
# Tests run side by side; BLAS threads beside them only wait for each other. The processes they start load the
# package as it was compiled by the first of them, whatever the shell says of bytecode.
test suite test-all laws: export OMP_NUM_THREADS := 1
test suite test-all laws: export OPENBLAS_NUM_THREADS := 1
test suite test-all laws: export MKL_NUM_THREADS := 1
test suite test-all laws: export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test suite test-all stores laws processors docs linkcheck axe package matrix lint types bench worlds zoo judges calibration mutants clean

help:
	@echo "make setup     the environment alone; .venv/bin/pertstack works afterwards"
	@echo "make demo      simulate a study, train, stack, judge; writes demo/study/report.html"
	@echo "make test      lint, types, tests, README commands, a small study, the report in a browser"
	@echo "make test-all  also the slow tests (faults, external environments, object stores)"
	@echo "make stores    what the tests of s3, http, gs, hf and zstd need beyond the setup; make test-all does it"
	@echo "make laws      every law on 2,000 new random examples (LAW_EXAMPLES=N); before an issue is called done"
	@echo "make processors  the tests that hang on rounding, with other vector units, kernels and thread counts"
	@echo "make docs      the documentation site in docs/_build; warnings are errors"
	@echo "make linkcheck every link of the site that leaves it; needs a network (links between pages are in make test)"
	@echo "make package   wheel and sdist, built and installed alone in an empty folder"
	@echo "make matrix    the quick tests under every Python from 3.11 to 3.14 that is here"
	@echo "make bench | worlds | zoo | judges | calibration | mutants    what stands behind the docs"

setup: $(STAMP)

$(STAMP): constraints.txt pyproject.toml
	@echo "== environment in $(VENV) (once; again only when pyproject.toml or constraints.txt change)"
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
	@echo "== lint"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	@echo "== types"
	$(BIN)/mypy

# axe-core (MPL-2.0) checks the report for accessibility; it lives in the test environment only.
axe: $(STAMP)
	@test -f $(AXE) || { command -v npm >/dev/null && npm install --silent --no-fund --no-audit --prefix $(VENV)/axe axe-core@4.14.1 >/dev/null 2>&1; } \
	  || echo "== axe-core was not installed (no npm, or no registry): accessibility tests will be skipped"

docs: $(STAMP)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

linkcheck: $(STAMP)
	$(BIN)/python -m sphinx --keep-going -q -b linkcheck docs docs/_build/linkcheck

package: $(STAMP)
	$(BIN)/python -m pytest -q tests/e2e/test_package.py

matrix:
	$(PYTHON) tests/matrix.py

# Types are checked beside the tests: both use one core for a while where there are two.
test: lint axe
	@$(MAKE) --no-print-directory -j2 types suite

suite: $(STAMP)
	@echo "== tests (the slow ones are in make test-all); the slowest ten are listed at the end"
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" -q --durations=10 --tb=short

test-all: lint types stores
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q

# Clients of object stores and a local S3 server, for tests/field/test_remote.py; too much for every setup.
stores: $(STAMP)
	@$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[remote]' 'moto[s3]' flask flask-cors hdf5plugin

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
	$(BIN)/python benchmarks/random_mutants.py

judges:
	$(PYTHON) -m venv .venv-judges
	.venv-judges/bin/python -m pip install --quiet --upgrade pip
	.venv-judges/bin/python -m pip install --quiet --editable . pytest hypothesis cell-eval==0.8.2 cell-eval2==0.20.0 scperteval==0.2.0 vcc-cli==0.3.0
	.venv-judges/bin/python -m pytest -q tests/judges

clean:
	rm -rf $(VENV) .venv-judges demo .pytest_cache .mypy_cache .ruff_cache
