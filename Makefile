# Every target does its own set-up; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_VENV := .venv-bench
DOCS_VENV := .venv-docs
DOCS_READY := $(DOCS_VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow torture break fuzz fuzz-readers mutants lint types layers tests docs vectors bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

setup: $(READY) ## make .venv with everything for development

# The stamp makes a second run install nothing.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ckptfmt needs Python 3.11 or newer; name one with 'make PYTHON=python3.12 ...'" >&2; exit 1; }
	@echo "Setting up $(VENV) (once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[torch,remote]' --group dev
	@touch $(READY)

demo: $(READY) ## train, kill, resume, compare bit for bit; then ls, inspect, verify
	@$(BIN)/python examples/demo.py

test: lint types layers tests ## ruff, mypy strict, import-linter and the tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

layers: $(READY)
	$(BIN)/lint-imports

tests: $(READY)
	$(BIN)/pytest -n auto -m 'not slow'

test-slow: $(READY) ## the tests that take minutes
	$(BIN)/pytest -n auto -m slow

torture: $(READY) ## kill hundreds of runs, at random and at each file operation (minutes)
	@$(BIN)/python -m tests.torture

break: $(READY) ## inject errors, limits and kills everywhere, and print what was survived (half an hour)
	@$(BIN)/python -m tests.breaking

fuzz: $(READY) ## the property tests with new examples, 2,000 each
	HYPOTHESIS_PROFILE=fuzz $(BIN)/pytest -n auto $$(grep -rlw given tests --include='test_*.py')

docs: $(READY) $(DOCS_READY) ## write the generated pages of docs/ anew, and build the site in build/site
	$(BIN)/python docs/json_forms.py
	$(DOCS_VENV)/bin/python docs/build_site.py

$(DOCS_READY): pyproject.toml constraints.txt
	@echo "Setting up $(DOCS_VENV) (once) ..."
	@$(PYTHON) -m venv $(DOCS_VENV)
	@$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip
	@$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --group docs
	@touch $(DOCS_READY)

mutants: $(READY) ## put faults into the minimal reader, one by one, and see whether a vector notices each (minutes)
	@$(BIN)/python -m tests.mutants

fuzz-readers: $(READY) ## compare the library with the minimal reader on changed files (MINUTES=10, SEED=...)
	@$(BIN)/python -m tests.readers --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

vectors: $(READY) ## make the spec's vectors again
	$(BIN)/python spec/vectors/generate.py

bench: $(READY) ## measure saves and restores, side by side with others (more than half an hour; QUICK=1: three minutes)
	@$(PYTHON) -m venv $(BENCH_VENV)
	@$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[torch]'
	@grep -v '^#' benchmarks/requirements.txt | while read -r it; do \
		$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $$it || echo "left out: $$it" >&2; done
	@$(BENCH_VENV)/bin/python -m benchmarks $(if $(QUICK),--quick)

clean: ## remove .venv and everything that can be made again
	rm -rf $(VENV) $(BENCH_VENV) $(DOCS_VENV) dist build demo-output .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
