# Everything a developer runs. Needs Python 3.11 or newer (PYTHON=...) and a package index; nothing is written
# outside this folder but pip's and Numba's caches.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet
LOCKED := --require-hashes --only-binary :all:
UV := uv==0.13.9
COMPILE = build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock" --group build --extra report $(UPGRADE) pyproject.toml

# Programs that print a figure and fail when it is too large; fit_*.py make catalogue figures from measurements.
BENCHMARKS := $(filter-out benchmarks/fit_%,$(sort $(wildcard benchmarks/*.py)))

.DEFAULT_GOAL := help
.PHONY: help plan live test check lint types contracts docs coverage bench lock clean

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
		|| sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/make \1: \2/p' $(MAKEFILE_LIST)

plan: $(VENV)/.plan ## install, answer examples/coding-lane.toml, write report.html
	@echo "plan: examples/coding-lane.toml"
	@$(BIN)/infermix plan examples/coding-lane.toml --report report.html

live: $(VENV)/.dev ## a planned fleet emulated, the gateway in front, agents and chat users: do promises hold? (plan.json, else a packaged one)
	@$(BIN)/python examples/serve/live.py

test: check ## install, then everything in check, the tests, and the examples in docstrings and docs
	@echo "test: compiling the kernels"
	@$(BIN)/infermix simulate examples/mixed-32.toml --requests 100 > build/compiled.txt 2>&1 || { cat build/compiled.txt; exit 1; }
	@echo "test: tests"
	@$(BIN)/python -m pytest --quiet --numprocesses 2 --dist worksteal
	@$(MAKE) --no-print-directory docs

check: lint types contracts ## lint, format, strict types, import contracts

lint: $(VENV)/.dev
	@echo "check: lint"
	@$(BIN)/ruff check --quiet
	@echo "check: format"
	@$(BIN)/ruff format --check --quiet || { $(BIN)/ruff format --check; exit 1; }

types: $(VENV)/.dev
	@echo "check: types"
	@$(BIN)/mypy --no-error-summary

contracts: $(VENV)/.dev
	@echo "check: import contracts"
	@mkdir -p build && $(BIN)/lint-imports > build/contracts.txt || { cat build/contracts.txt; exit 1; }

docs: $(VENV)/.dev ## run the examples in docstrings and docs
	@echo "test: examples in docstrings and docs"
	@$(BIN)/python -m pytest --quiet --doctest-modules --doctest-glob='*.md' src docs $(wildcard README.md)

coverage: $(VENV)/.dev ## lines that the tests reach, kernels as plain Python (about 20 minutes)
	@INFERMIX_JIT=0 $(BIN)/python -m coverage run -m pytest --quiet --no-header -p no:cacheprovider
	@$(BIN)/python -m coverage report --fail-under=90

bench: $(VENV)/.dev ## run every benchmark; fails when a figure is over its bound
	@status=0; for program in $(BENCHMARKS); do \
		echo "bench: $$program"; $(BIN)/python $$program || status=1; done; exit $$status

lock: ## pin everything anew (UPGRADE=--upgrade takes newer versions)
	@echo "lock: requirements.lock, requirements-dev.lock"
	@$(PYTHON) -m venv build/lock && build/lock/bin/python -m pip --disable-pip-version-check install --quiet $(UV)
	@$(COMPILE) --output-file requirements.lock > /dev/null
	@$(COMPILE) --extra serve --extra epp --extra dev --constraints requirements.lock --output-file requirements-dev.lock > /dev/null

clean: ## remove what make made
	@rm -rf $(VENV) build dist report.html plan.json .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: nothing is installed again while the lock file and pyproject.toml stay as they are.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "make: $(PYTHON) is not Python 3.11 or newer; name one that is: make PYTHON=python3.12" >&2; exit 1; }
	@echo "install: virtual environment in $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.plan: requirements.lock pyproject.toml | $(VENV)/.python
	@echo "install: infermix and what it needs"
	@$(INSTALL) $(LOCKED) -r requirements.lock
	@$(INSTALL) --no-build-isolation --no-deps --editable '.[report]'
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.plan
	@echo "install: tools for developers"
	@$(INSTALL) $(LOCKED) -r requirements-dev.lock
	@touch $@
