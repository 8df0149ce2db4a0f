# Two commands matter: `make demo` and `make test`. Both set up what they need in .venv first.
# A fresh machine needs python3 >= 3.11 with pip, make, git. No index is named
# anywhere: pip takes the one it is configured for.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help setup system demo test test-fast test-slow test-exhaustive test-airflow-min test-airflow-next test-python test-oldest test-plain test-wheel test-mutants test-coverage test-cluster screenshots docs docs-serve lint types format clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 20

setup: $(READY)  ## the virtual environment with everything in it

$(READY): pyproject.toml constraints.txt scripts/make_venv.sh
	sh scripts/make_venv.sh "$(PYTHON)" "$(VENV)"
	@touch $@

system:  # the browser that the JupyterLab tests drive
	sh scripts/need_chromium.sh

demo: setup  ## notebook and DAG, for real, against the sandbox: no key, no money
	$(BIN)/python -m demo

test: setup system lint types  ## the whole suite
	$(BIN)/python scripts/run_tests.py

test-fast: setup  ## what one runs while working: no processes, no kills, no real Airflow or browser
	$(BIN)/python -m pytest -q -m "not slow and not thorough and not exhaustive" -n 2

test-slow: setup system  ## only those
	$(BIN)/python -m pytest -q -m "slow and not exhaustive" --ignore=tests/integration/cluster

test-exhaustive: setup  ## the whole fault matrix, 10,000 waits, long interleavings
	$(BIN)/python -m pytest -q -m exhaustive -n 2

test-airflow-min:  ## Airflow, unit and end to end, on the oldest version supported
	sh scripts/test_airflow.sh "$(PYTHON)" 3.0.6 constraints-airflow-min.txt

test-airflow-next:  ## the same on the newest pre-release
	sh scripts/test_airflow.sh "$(PYTHON)" 3.4.0b2 constraints-airflow-next.txt

test-python:  ## core, commands, notebook and sandbox on another Python: make test-python PYTHON=python3.13
	sh scripts/test_python.sh "$(PYTHON)"

test-oldest:  ## the core with the oldest libraries that pyproject.toml allows
	sh scripts/test_oldest.sh "$(PYTHON)"

test-plain:  ## the README's first commands from a plain install of the built wheel
	sh scripts/test_plain_install.sh "$(PYTHON)"

test-wheel: setup  ## wheel and sdist, and what the wheel brings with each extra alone
	$(BIN)/python scripts/test_wheel.py

test-mutants: setup  ## breaks the money path on purpose; lists what no test noticed
	test -x .venv-mutants/bin/cosmic-ray || { "$(PYTHON)" -m venv .venv-mutants && \
	  .venv-mutants/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt cosmic-ray; }
	$(BIN)/python scripts/test_mutants.py

test-coverage: setup  ## the fast suite with a floor for each package
	$(BIN)/python -m pytest -q -m "not slow and not exhaustive" -n 2 --cov --cov-report=json:build/coverage.json
	$(BIN)/python scripts/coverage_floors.py build/coverage.json

test-cluster: setup  ## Celery on Redis and PostgreSQL, two triggerers, killed processes
	sh scripts/need_cluster.sh "$(BIN)/python"
	$(BIN)/python -m pytest -q tests/integration/cluster

screenshots: setup system  ## the documentation's pictures, from a real JupyterLab and a real Airflow
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/integration/jupyter/screenshots.py tests/integration/airflow/screenshots.py

docs: setup  ## the documentation site, into build/site; strict about links and names
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/site

docs-serve: docs  ## the site at http://127.0.0.1:8000
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site 8000

lint: setup  ## ruff, Airflow rules included
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## mypy, strict
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
