# Everything a newcomer or a CI job runs.  `make` lists it.
#
# The first run makes .venv and installs there; later runs reuse it and install only when what is
# compiled or required has changed.  Python files are used from this checkout, so edits need no install.

PYTHON ?= python3
# A plain install brings CUDA builds (gigabytes) on Linux.  Without a GPU, this avoids them:
#   make TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu" demo
TORCH ?= torch==2.13.0
# Test processes (0: none, in this process), and further arguments, as in: make test ARGS="-k beam", make demo ARGS=--restart
WORKERS ?= auto
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH_STAMP := $(VENV)/.torch-$(shell printf '%s' "$(TORCH)" | cksum | cut -d' ' -f1)
COMPILED := pyproject.toml setup.py CMakeLists.txt jowa/__init__.py $(wildcard csrc/*.* csrc/cuda/* csrc/kernels/* csrc/engine/* csrc/third_party/*/*)

.DEFAULT_GOAL := help
.PHONY: help demo test faults lint format types contracts check gpu cuda-check sanitize fuzz fuzz-short dist clean distclean install install-dev
.DELETE_ON_ERROR:

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: install  ## train a small agent on this machine and watch it play (set-up included)
	$(BIN)/python -m jowa.train $(ARGS)

# One thread a process: several processes that each use every core slow one another down.
test: install-dev  ## the tests; no GPU needed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal --durations 10 $(ARGS)

faults: install-dev  ## kill training processes 20 times at random moments; they must end where an undisturbed run ends
	OMP_NUM_THREADS=1 JOWA_KILLS=20 $(BIN)/python -m pytest -s tests/train/test_faults.py $(ARGS)

lint: install-dev  ## ruff: mistakes and layout
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install-dev  ## let ruff rewrite what lint would refuse, as far as it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install-dev  ## mypy, strict
	$(BIN)/mypy

contracts: install-dev  ## import-linter: data flows one way
	$(BIN)/lint-imports

check: install-dev  ## lint, types, contracts, fuzz-short, test: what CI runs; says where the time went
	@report=""; for step in lint types contracts fuzz-short test; do \
	  echo "== $$step"; start=$$(date +%s); \
	  $(MAKE) --no-print-directory $$step || { echo "== $$step failed"; exit 1; }; \
	  report="$$report $$step $$(( $$(date +%s) - start )) s;"; \
	done; echo "== all passed:$$report"

gpu:  ## on a machine with a GPU, in this $(PYTHON)'s own environment: its tests, conformance, benchmarks
	$(PYTHON) -m benchmarks.gpu
	$(PYTHON) -m pytest -m gpu tests
	$(PYTHON) -m jowa.conformance tests/golden --device cuda
	$(PYTHON) -m jowa.conformance tests/golden --device cuda --dtype bfloat16
	$(PYTHON) -m pytest benchmarks

# The module is built into a copy of the package, which stands before the installed one on the path.
sanitize: install-dev  ## the native core's tests under the address and undefined-behaviour sanitizers
	rm -rf build/sanitize/site && mkdir -p build/sanitize/site && cp -RL jowa build/sanitize/site/jowa
	rm -f build/sanitize/site/jowa/_native*.so
	$(PIP) install --quiet pybind11 cmake ninja
	$(BIN)/cmake -S . -B build/sanitize/native -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	  -DJOWA_SANITIZE=ON -DPython_EXECUTABLE=$(abspath $(BIN))/python \
	  -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)" \
	  -DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$(abspath build/sanitize/site/jowa)
	$(BIN)/cmake --build build/sanitize/native
	LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=$(abspath build/sanitize/site) PYTHONSAFEPATH=1 \
	  $(BIN)/python -m pytest tests/csrc $(wildcard tests/kernels/test_*_native.py) -p no:cacheprovider $(ARGS)

cuda-check:  ## compile the kernels in csrc/cuda for A100 and H100, and show registers and spills; needs nvcc
	for arch in sm_80 sm_90; do $${NVCC:-nvcc} -std=c++20 -O3 -arch=$$arch --fmad=false --expt-relaxed-constexpr \
	  -Xptxas -v -cubin -o /dev/null csrc/cuda/trees.cu || exit 1; done

# Random searches with the trees' invariants checked, under each sanitizer; no Python. The second runs several threads.
FUZZED := csrc/fuzz/fuzz_trees.cpp csrc/trees.cpp csrc/parallel.cpp
FUZZ_STEPS ?= 1000000
FUZZ_SEED ?=

fuzz: build/fuzz/address build/fuzz/thread  ## a million random operations on the search trees, under sanitizers
	build/fuzz/address $(FUZZ_STEPS) $(FUZZ_SEED)
	build/fuzz/thread $(FUZZ_STEPS) $(FUZZ_SEED)

fuzz-short:  ## the same in seconds
	$(MAKE) --no-print-directory -j2 build/fuzz/address build/fuzz/thread
	$(MAKE) --no-print-directory fuzz FUZZ_STEPS=5000

build/fuzz/address: SANITIZERS := address,undefined
build/fuzz/thread: SANITIZERS := thread
build/fuzz/address build/fuzz/thread: $(FUZZED) $(wildcard csrc/*.h)
	@mkdir -p $(@D)
	$(CXX) -std=c++20 -g1 -O1 -Wall -Wextra -ffp-contract=off -DJOWA_NUMBERS_PER_THREAD=1 -DJOWA_SPINS=20 \
	  -fsanitize=$(SANITIZERS) -fno-sanitize-recover=all -o $@ $(FUZZED) -pthread

dist: install-dev  ## an sdist, and from it a wheel, in dist/
	rm -rf build/lib* build/bdist* dist
	$(BIN)/python -m build

clean:  ## remove what was built and the caches; keeps .venv, data and runs
	rm -rf build dist *.egg-info jowa/_native*.so .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -f $(VENV)/.installed $(VENV)/.installed-dev

distclean: clean  ## clean, and .venv too
	rm -rf $(VENV)

install:
	@if $(MAKE) --no-print-directory --question $(VENV)/.installed; \
	then echo "reusing $(VENV) ($$($(BIN)/python -V))"; else $(MAKE) --no-print-directory $(VENV)/.installed; fi

install-dev:
	@if $(MAKE) --no-print-directory --question $(VENV)/.installed-dev; \
	then echo "reusing $(VENV) ($$($(BIN)/python -V))"; else $(MAKE) --no-print-directory $(VENV)/.installed-dev; fi

$(VENV)/.installed: $(TORCH_STAMP) $(COMPILED)
	$(PIP) install -e .
	@touch $@

$(VENV)/.installed-dev: $(TORCH_STAMP) $(COMPILED)
	$(PIP) install -e '.[dev]'
	@touch $(VENV)/.installed $@

$(TORCH_STAMP): | $(BIN)/python
	@rm -f $(VENV)/.torch-*
	$(PIP) install $(TORCH)
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
	  echo "error: $(PYTHON) is missing or not Python 3.11 to 3.13; name such a one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "error: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
