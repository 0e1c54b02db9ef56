# run, test, ui, bench and lint each work alone on a fresh clone with Python 3.11, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One more than there are cores: tests of servers and browsers wait a third of their time.
TEST_PROCESSES := $(shell $(PYTHON) -c "import os; print(min(4, len(os.sched_getaffinity(0)) + 1))")
export DAGSTER_HOME := $(CURDIR)/.dagster
# Where this is set, every process compiles all code anew: a second of each command.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test test-slow fuzz browser ui bench lint format lock audit clean

run: $(VENV)/.installed
	@$(BIN)/stemma run

test: $(VENV)/.installed browser
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/.installed browser
	@$(BIN)/python -m pytest -m slow --timeout 3600 --hypothesis-profile random

# New inputs for readers, cleaner, tokeniser, chunker, configuration and command line: FUZZ_SECONDS for each.
fuzz: $(VENV)/.installed
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-300} $(BIN)/python -m pytest -m slow tests/test_fuzz.py tests/test_reading_mutations.py \
	  --numprocesses $(TEST_PROCESSES) --timeout 7200

# Chromium, for the tests in a browser: installed where that is possible without asking anybody. Without it they are
# skipped, so this never fails.
browser:
	@if { command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing Chromium for the tests in a browser (once) ..."; \
	  { timeout 120 apt-get update && DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install --yes \
	    --no-install-recommends chromium fonts-dejavu-core; } >/dev/null 2>&1 </dev/null \
	    || echo "Chromium cannot be installed (apt-get install chromium): the tests in a browser will be skipped."; \
	else echo "No Chromium (apt-get install chromium): the tests in a browser will be skipped."; fi

ui: $(VENV)/.installed
	@$(BIN)/stemma ui

bench: $(VENV)/.installed
	@$(BIN)/python benchmarks/peers.py

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/.installed
	@(echo "# The pinned environment of make run and make test (Python 3.11, Linux). Made by: make lock"; \
	  $(BIN)/pip freeze --all --exclude pip --exclude-editable | sed 's/+cpu$$//') > requirements.lock

# Known faults in the pinned packages; needs the network. A package that cannot be looked up fails it as well.
audit:
	@test -x $(VENV)-audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)-audit && $(VENV)-audit/bin/pip install --quiet pip-audit; }
	@$(VENV)-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement requirements.lock

clean:
	rm -rf $(VENV) $(VENV)-audit .stemma .dagster build *.egg-info

$(VENV)/.installed: requirements.lock pyproject.toml
	@echo "Installing Stemma's pinned environment into $(VENV) (once; 2 GB, some four minutes; a dot is ten seconds)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Stemma needs Python 3.11 or newer")'
	@$(PYTHON) -m venv $(VENV)
	@(while sleep 10 >/dev/null && kill -0 $$$$; do printf .; done) 2>/dev/null & dots=$$!; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock \
	  && $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .; \
	  status=$$?; kill $$dots; echo; exit $$status
	@touch $@
