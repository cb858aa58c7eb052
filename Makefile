# Each target sets up what it needs: .venv by tools/bootstrap.py, everything else under var/.

PORT ?= 8000
PY := .venv/bin/python
# the first Python that is new enough; 3.11 is the one that is tested
PYTHON := $(or $(PYTHON),$(shell for python in python3.11 python3.12 python3.13 python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo "$$python"; break; }; done))
# bench-<name> runs bench/<name>.py, bench/<name>/, or bench/<name>_vs_<peer> where there is one to beat
bench_of = $(basename $(notdir $(wildcard bench/$(1).py bench/$(1) bench/$(1)_vs_*)))
BENCHES := $(foreach name,trainer engine shared annotation queue scale load gate influence unattended,$(if $(call bench_of,$(name)),bench-$(name)))
# a file at a time on each core, and one thread a process: on small models more of them only wait
# for each other
test suite test-long test-avx2 test-reference coverage quick quick-list: export OMP_NUM_THREADS := 1
# one process more than cores, as some tests wait for processes of their own
WORKERS = $(shell $(PYTHON) -c 'import os; print(min(4, (os.cpu_count() or 1) + 1))')
# in alphabetical order: xdist's default, most tests first, starts the slowest files last
PYTEST := $(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# votes, the queue and everything that locks rows
LOCKING := $(addprefix tests/feedback/,votes queue desk gold adjudication flags)
DATABASE_TESTS := tests/db $(LOCKING) tests/faults/test_annotating.py tests/faults/test_erase.py
OTHER_DATABASE_TESTS := tests/feedback $(addprefix --ignore=,$(LOCKING)) $(addprefix tests/,accounts training privacy operations monitoring serving api closed_loop) $(addprefix --ignore=tests/,serving/engine closed_loop/test_size.py)
# each process runs all migrations: more than two cost more than they save
POSTGRES_PYTEST := $(PY) tools/postgres.py $(PYTEST) -n 2 -m 'not long and not browser and not model'

.PHONY: help docs demo loop test test-long test-avx2 test-reference test-python test-ray coverage quick quick-list check lint types compiled suite soak evidence sbom audit bench test-gpu $(BENCHES) install install-test clean

help:
	@echo 'make demo [PORT=8000]   run everything on this machine, until Ctrl-C'
	@echo 'make loop [ARGS=…]      prove the loop: simulated votes, training, release, figures'
	@echo 'make test [ARGS=…]      check + the whole suite; ARGS go to pytest, for example "-k vote"'
	@echo 'make test-long          the tests that take long: most of an hour on two cores'
	@echo 'make test-avx2          the trainer and engine tests held to AVX2, as on older processors'
	@echo 'make test-reference     the trainer and engine tests without compiled code'
	@echo 'make test-python PYTHON=python3.13   the web app on another Python, without torch'
	@echo 'make test-ray           runs on a Ray cluster of two nodes on this machine; installs Ray under var/'
	@echo 'make test-gpu           tests and figures on one NVIDIA GPU, in eight minutes at most'
	@echo 'make coverage           the tests of `make test`, and the share of lines that they run'
	@echo 'make quick              lint and the fastest tests, under a minute'
	@echo 'make soak [ARGS=…]      twenty minutes of use while parts are killed; ARGS="--minutes 5 --seed 3"'
	@echo 'make evidence [ARGS=…]  does the loop improve models? eight studies; ARGS="--studies losses,noise"'
	@echo 'make check              ruff, mypy, import-linter, djade, oxlint'
	@echo 'make sbom               the software bill of materials (CycloneDX), in var/sbom.json'
	@echo 'make audit              known vulnerabilities of the pinned packages; asks pypi.org'
	@echo 'make docs               the documentation as pages, in var/site; links are checked'
	@echo 'make bench              $(if $(BENCHES),all of: $(BENCHES),nothing yet)'
	@echo 'make clean              remove .venv and caches; var/ with its votes and models stays'

demo: install
	@PORT=$(PORT) $(PY) -m feedback_app.localstack $(ARGS)

loop: install
	@$(PY) manage.py closed_loop $(ARGS)

# The database tests run twice: on SQLite with tables created from the models, then on PostgreSQL with
# all migrations. On PostgreSQL most of them run in test-long.
# Types are checked beside the first part: one process, while tests wait for processes of their own.
# Code is compiled beside lint: three processes of the suite would otherwise compile the same.
test:
	@$(MAKE) --no-print-directory -j 2 lint compiled
	@$(MAKE) --no-print-directory -j 2 types suite
	@$(if $(ARGS),,$(POSTGRES_PYTEST) $(DATABASE_TESTS))

suite: install-test
	@chromium=$$($(PY) tools/chromium.py) && \
	PROSPECT_CHROMIUM="$$chromium" $(PYTEST) --nomigrations -m 'not long' $(ARGS)

# Not part of `test`: on Python 3.11 counting lines doubles the processor time of our own code.
coverage: install-test
	@chromium=$$($(PY) tools/chromium.py) && \
	PROSPECT_CHROMIUM="$$chromium" $(PYTEST) --nomigrations -m 'not long' --cov --cov-report= $(ARGS)
	@echo "Lines run by the tests: $$($(PY) -m coverage report --format=total) %"

# Slow tests: runs killed at every moment, several processes for one run, compiling ahead.
test-long: install-test
	@chromium=$$($(PY) tools/chromium.py) && \
	PROSPECT_CHROMIUM="$$chromium" $(PYTEST) -m long $(ARGS)
	@$(if $(ARGS),,$(POSTGRES_PYTEST) $(OTHER_DATABASE_TESTS))

# The trainer and the engine on an older x86 processor: held to AVX2, without bfloat16 units.
test-avx2: install-test
	@$(PY) tools/avx2.py $(PYTEST) -m 'not browser and not long' tests/trainer tests/engine_contract $(ARGS)

# The trainer and the engine without compiled code, as on a GPU or without the extra `cpu`.
test-reference: install-test
	@PROSPECT_BACKEND=torch_reference $(PYTEST) -m 'not browser and not long' tests/trainer tests/engine_contract $(ARGS)

# Needs a GPU, torch, transformers and pytest, and installs nothing: .venv where there is one, else
# the Python that GPU_PYTHON names.
GPU_PYTHON ?= $(if $(wildcard $(PY)),$(PY),python3)
test-gpu:
	@$(GPU_PYTHON) -m bench.gpu $(ARGS)

# In an environment of its own under var/pythons: .venv keeps its Python.
test-python:
	@$(if $(PYTHON),$(PYTHON) tools/python_suite.py $(PYTHON) $(ARGS),$(NO_PYTHON))

# Ray in an environment of its own; its jobs use .venv.
test-ray: install-test
	@$(PY) tools/ray_suite.py $(ARGS)

# The files in tests/quick.txt; `make quick-list` chooses them again by measured times.
FAST := not slow and not long and not browser and not model
quick: install-test
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check --quiet .
	@$(PY) -m pytest -n auto --dist loadfile --nomigrations -m '$(FAST)' @tests/quick.txt $(ARGS)

quick-list: install-test
	@$(PYTEST) --nomigrations -m '$(FAST)' --junitxml=var/fast.xml $(ARGS)
	@$(PY) tools/quick_tests.py var/fast.xml

check: lint types

# The model of the tests, and the code that trainer and engine compile for this processor, kept
# where the tests look for it.
compiled: install-test
	@$(PY) -c 'import tests.environment; from trainer.__main__ import main; \
		raise SystemExit(main(["prepare", "--models", "var/models"]))'

lint: install-test
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/lint-imports
	@find templates -name '*.html' -exec .venv/bin/djade --target-version 5.2 --check {} +
	@.venv/bin/oxlint --deny-warnings --quiet static/js tests/js

types: install-test
	@.venv/bin/mypy -p feedback_app -p trainer -p artifact_store

# People use a whole stack while faults are injected, in an order that a seed decides; report and logs are in var/soak.
soak: install-test
	@$(PY) -m tests.soak $(ARGS)

# Eight studies with simulated annotators on SmolLM2: hours; what is finished is kept in var/bench/evidence.
evidence: install-test
	@$(PY) -m bench.evidence $(ARGS)

sbom: install-test
	@$(PY) tools/sbom.py var/sbom.json

# --strict: without it, packages that the service does not know count as free of vulnerabilities.
audit: install-test
	@$(PY) -m pip_audit --strict --progress-spinner off --cache-dir var/audit --no-deps --disable-pip \
		--requirement constraints.txt $(ARGS) \
	|| { echo 'make audit: a vulnerability was found, or pypi.org could not be asked: see above.' >&2; exit 1; }

docs: install-test
	@.venv/bin/zensical build --clean --strict

bench: $(BENCHES)

$(BENCHES): bench-%: install-test
	@$(PY) -m bench.$(call bench_of,$*) $(ARGS)

install:
	@$(if $(PYTHON),$(PYTHON) tools/bootstrap.py,$(NO_PYTHON))

install-test:
	@$(if $(PYTHON),$(PYTHON) tools/bootstrap.py --extra test,$(NO_PYTHON))

NO_PYTHON = echo 'make: no Python 3.11 or newer was found: install it (Debian: apt-get install python3 python3-venv, macOS: brew install python@3.11) or name one, for example PYTHON=/path/to/python3.11.' >&2; exit 1

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './var/*' -prune -exec rm -rf {} +
