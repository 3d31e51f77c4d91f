# What a developer and CI run. `make help` lists it; .ci/run calls the same targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Tests wait for timers and servers more than they reckon, so that two fill a core. 0 runs them one
# after the other, in this process.
TEST_WORKERS ?= $(shell cores=$$(nproc); echo $$((cores > 4 ? 8 : 2 * cores)))

# What an installed package is built from; Python and Lua files are used where they lie.
BUILD_INPUTS := pyproject.toml setup.py \
	$(shell find ext loadtest -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.h')
RUN_STAMP := $(VENV)/.installed-run
DEVELOP_STAMP := $(VENV)/.installed-develop
BENCH_STAMP := $(VENV)/.installed-bench

BENCH_OPTIONS := --benchmark-max-time=0.5 --benchmark-sort=mean \
	--benchmark-columns=median,iqr,rounds

define INSTALL
	@echo "installing authz with its dependencies into $(VENV) (minutes at most) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".$(EXTRAS)" || { \
		echo "make: the installation failed, see the lines above; without a way to a Python" \
			"package index, give pip one (PIP_INDEX_URL, or PIP_FIND_LINKS with wheels)" >&2; \
		exit 1; }
	@touch $(RUN_STAMP) $@
endef

.PHONY: help run test lint load bench bench-scripts bench-worker bench-compare bench-archive build wheel clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(RUN_STAMP)  ## build what changed and start the demonstration
	@$(BIN)/authz demo

# Without written bytecode every daemon that a test starts would compile all that it imports.
test: $(DEVELOP_STAMP)  ## run the tests
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest \
		--numprocesses=$(TEST_WORKERS) --dist=worksteal

lint: $(DEVELOP_STAMP)  ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

load: $(RUN_STAMP)  ## put load on a daemon of its own and measure it (under a minute)
	@$(BIN)/python -m loadtest

bench: $(BENCH_STAMP)  ## micro-benchmarks, beside other libraries (some minutes)
	@$(BIN)/python -m pytest tests/benchmarks -m benchmark -q $(BENCH_OPTIONS)

bench-scripts: $(BENCH_STAMP)  ## what the scripts cost the store, in time and in memory (minutes)
	@PYTHONPATH=tests $(BIN)/python -m benchmarks.script_cost --live 1000000
	@PYTHONPATH=tests $(BIN)/python -m benchmarks.store_size
	@if command -v valgrind >/dev/null; then \
		PYTHONPATH=tests $(BIN)/python -m benchmarks.script_cost --instructions; \
	else echo "left out: instructions (package valgrind is not installed)"; fi

bench-worker: $(BENCH_STAMP)  ## what a request costs the processor of a hook worker (minutes)
	@PYTHONPATH=tests $(BIN)/python -m benchmarks.worker_cost
	@if command -v valgrind >/dev/null; then \
		PYTHONPATH=tests $(BIN)/python -m benchmarks.worker_cost --instructions; \
	else echo "left out: instructions (package valgrind is not installed)"; fi

bench-compare: $(BENCH_STAMP)  ## the hook worker beside its ceiling and its rivals (minutes)
	@PYTHONPATH=tests $(BIN)/python -m benchmarks.compare

bench-archive: $(BENCH_STAMP)  ## how fast the archive takes a store's ledgers in
	@PYTHONPATH=tests $(BIN)/python -m benchmarks.archive_drain $(if $(ARCHIVE_URL),--url=$(ARCHIVE_URL))
	@PYTHONPATH=tests $(BIN)/python -m benchmarks.archive_stalls --variants none office nice-10

build: $(DEVELOP_STAMP)  ## rebuild the Cython extensions where they lie
	$(BIN)/python setup.py --quiet build_ext --inplace

wheel: $(DEVELOP_STAMP)  ## build a wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## remove what was built (the virtual environment stays)
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find ext loadtest \( -name '*.so' -o -name '*.c' \) -delete
	find . -path ./$(VENV) -prune -o -name __pycache__ -prune -exec rm -rf {} +
	rm -f $(RUN_STAMP) $(DEVELOP_STAMP) $(BENCH_STAMP)

$(RUN_STAMP): $(BUILD_INPUTS) | $(BIN)/pip
	$(INSTALL)

# The developer's installation includes all that running needs: one serves both.
$(DEVELOP_STAMP): EXTRAS := [test,lint]
$(DEVELOP_STAMP): $(BUILD_INPUTS) | $(BIN)/pip
	$(INSTALL)

$(BENCH_STAMP): EXTRAS := [test,lint,bench]
$(BENCH_STAMP): $(BUILD_INPUTS) | $(BIN)/pip
	$(INSTALL)

# pip comes last into a virtual environment, so that a half-made one is made again.
$(BIN)/pip:
	@.ci/prerequisites $(PYTHON) >/dev/null
	@$(PYTHON) -m venv --clear $(VENV)
