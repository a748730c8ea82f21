# `make` alone lists the commands. Variables: PYTHON (the Python that creates .venv), PORT (8000); RUNS, SEED and MINUTES
# of the campaign and the fuzzer.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
PORT ?= 8000
# The database tests also run on this PostgreSQL if it answers; with REQUIRE_SERVICES=1 it must answer.
TEST_POSTGRES_URL ?= postgres://postgres@127.0.0.1:5432/postgres
REQUIRE_SERVICES ?= 0
RUNS ?= 20
SEED ?= 1
MINUTES ?= 5
# The share of its examples that each property test tries on SQLite. On PostgreSQL it is always 0.3, since only a few
# dozen lines of SQL differ.
EXAMPLES ?= 0.3
export REQUIRE_SERVICES
# Without compiled files each process of pytest rewrites the assertions of all tests again: half of what collecting costs.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
# Stamp files, so that a second call takes milliseconds. Running needs only the first, testing both.
RUNTIME := .venv/.runtime
INSTALLED := .venv/.installed
# For tools that start Django: they use neither the developer's settings nor the developer's database.
BARE := DJANGO_ENV_FILE= DATABASE_URL=sqlite:///.venv/none.sqlite3

.PHONY: help
help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(RUNTIME) ## simulator, daemon and web server in one, on this machine alone; PORT=8000
	@echo 'Starting the demo (manage.py demo): marketplace, daemon and web server; some 10 s'
	@exec $(BIN)/python manage.py demo --port $(PORT)

.PHONY: install
install: $(INSTALLED) ## create .venv and install the packages

# For two cores: mypy beside two test processes. Property tests try 0.1 of their examples; `make test` tries
# 0.3, `.ci/run` all on SQLite.
.PHONY: quick
quick: $(INSTALLED) ## lint, types, and the tests that need neither a process nor a browser, on SQLite: some minutes
	@$(MAKE) --no-print-directory -j 2 lint types migrations quick-tests

.PHONY: quick-tests
quick-tests: $(INSTALLED)
	@EXAMPLES=0.1 SCHEMA_EXAMPLES=1 DATABASE_URL= $(BIN)/python -m pytest -q -n 2 \
		marketplace_sync/tests/unit marketplace_sync/tests/database $(PYTEST_ARGS)

.PHONY: test
test: $(INSTALLED) ## lint, types, migrations, all tests on SQLite; the database tests also on PostgreSQL, if it answers
	@$(MAKE) --no-print-directory lint types migrations
	@if $(BIN)/python -c 'import psycopg, sys; psycopg.connect(sys.argv[1], connect_timeout=5).close()' \
			'$(TEST_POSTGRES_URL)' 2>/dev/null; then postgres=yes; \
	elif [ '$(REQUIRE_SERVICES)' = 1 ]; then \
		echo 'PostgreSQL does not answer at TEST_POSTGRES_URL, and REQUIRE_SERVICES=1 asks for it.' >&2; exit 1; \
	else postgres=no; echo 'PostgreSQL does not answer at TEST_POSTGRES_URL: the tests run on SQLite alone.'; fi; \
	echo '--- tests on SQLite'; \
	EXAMPLES=$(EXAMPLES) DATABASE_URL= $(BIN)/python -m pytest $(PYTEST_ARGS); \
	if [ $$postgres = yes ]; then \
		echo '--- tests on PostgreSQL: all that use a database'; \
		EXAMPLES=0.3 SCHEMA_EXAMPLES=2 DATABASE_URL='$(TEST_POSTGRES_URL)' $(BIN)/python -m pytest -m database $(PYTEST_ARGS); \
	fi

.PHONY: bench
bench: $(INSTALLED) ## measure the mirror beside simpler programs: about 25 minutes; BENCH_ARGS=--quick: 5
	@exec $(BIN)/python -m bench $(BENCH_ARGS)

.PHONY: lint
lint: $(INSTALLED) ## check rules and format with ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: format
format: $(INSTALLED) ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: types
types: $(INSTALLED) ## check types with mypy, strict in protocol/ and engine/
	@$(BARE) $(BIN)/mypy

.PHONY: migrations
migrations: $(INSTALLED) ## fail when a model has changed without its migration
	@$(BARE) $(BIN)/python manage.py makemigrations --check --dry-run

.PHONY: audit
audit: $(INSTALLED) ## find known vulnerabilities of the installed packages, online. Exit 1: found, 2: no service answers
	@$(BIN)/python .ci/audit.py

.PHONY: chaos
chaos: $(INSTALLED) ## random troubles against the whole daemon, on each database that answers; RUNS=20 SEED=1
	@databases=sqlite; \
	if $(BIN)/python -c 'import psycopg, sys; psycopg.connect(sys.argv[1], connect_timeout=5).close()' \
			'$(TEST_POSTGRES_URL)' 2>/dev/null; then databases="sqlite $(TEST_POSTGRES_URL)"; \
	else echo 'PostgreSQL does not answer at TEST_POSTGRES_URL: the campaign uses SQLite only.'; fi; \
	exec $(BIN)/python -m marketplace_sync.tests.chaos --runs $(RUNS) --seed $(SEED) --database $$databases $(CHAOS_ARGS)

.PHONY: fuzz
fuzz: $(INSTALLED) ## give the decoders millions of random inputs; MINUTES=5 SEED=1
	@$(BIN)/python -c 'import atheris' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/fuzz.txt || \
		echo 'atheris cannot be installed here: the fuzzer runs with its grammar only, without coverage.'
	@exec $(BIN)/python -m marketplace_sync.tests.fuzz --minutes $(MINUTES) --seed $(SEED) $(FUZZ_ARGS)

# h11 limits the size of a request's headers; httptools, the default, does not.
.PHONY: run
run: $(RUNTIME) ## the web server alone; PORT=8000
	@exec $(BIN)/python -m uvicorn atomproject.asgi:application --host 127.0.0.1 --port $(PORT) --lifespan off --http h11

.PHONY: sync
sync: $(RUNTIME) ## the daemon alone, with the settings of .env
	@exec $(BIN)/python manage.py runsync

.PHONY: check
check: $(RUNTIME) ## report every problem of the settings
	@$(BIN)/python manage.py check

.PHONY: clean
clean: ## remove .venv and caches; the database and .env stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: lock
lock: ## write the lock files of requirements/*.in again; needs uv. LOCK_ARGS=--upgrade: with the newest versions
	@$(PYTHON) .ci/lock.py $(LOCK_ARGS)

define make_venv
	@if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		command -v '$(PYTHON)' >/dev/null || \
			{ echo 'Python 3.11 or newer is needed; $(PYTHON) is not there. Try: make PYTHON=/path/to/python3.11' >&2; exit 1; }; \
		'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
			{ echo "Python 3.11 or newer is needed; $(PYTHON) is $$('$(PYTHON)' -V 2>&1). Try: make PYTHON=python3.11" >&2; exit 1; }; \
		'$(PYTHON)' -c 'import venv, ensurepip' 2>/dev/null || \
			{ echo 'The venv module of $(PYTHON) is missing. On Debian or Ubuntu: apt install python3-venv' >&2; exit 1; }; \
		rm -rf .venv; \
		echo "Making .venv with $$('$(PYTHON)' -V 2>&1)"; \
		'$(PYTHON)' -m venv .venv; \
	fi
endef

# Every package by its hash: `pip install -r requirements.txt` installs the same.
define install_locked
	@seconds=$$SECONDS; \
	if command -v uv >/dev/null; then uv pip install --quiet --python $(BIN)/python --require-hashes -r $(1); \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(1); fi; \
	echo "  installed in $$((SECONDS - seconds)) s"
	@touch $@
endef

$(RUNTIME): requirements/runtime.txt
	$(make_venv)
	@echo 'Installing what running needs (requirements/runtime.txt) into .venv; some 20 s to 2 min, once'
	$(call install_locked,requirements/runtime.txt)

$(INSTALLED): requirements.txt requirements/test.txt $(RUNTIME)
	@echo 'Installing what testing needs beside it (requirements.txt) into .venv; some 30 s to 3 min, once'
	$(call install_locked,requirements.txt)
