# One command for each chore; see CONTRIBUTING.md.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install dev run test long quick clients mutations check docs translations bench queueing soak lock clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# A pip that is there already saves the seconds of putting another one into the virtual environment.
FROM_OUTSIDE := $(shell $(PYTHON) -m pip --help 2>/dev/null | grep -q -e --python && echo yes)
PIP := $(if $(FROM_OUTSIDE),$(PYTHON) -m pip --python $(BIN)/python,$(BIN)/pip)
INSTALL := $(PIP) install --quiet --no-compile --require-hashes --only-binary :all:

# The stamps make a second install free: pip runs only when a lock file changed.
$(VENV)/.installed: requirements.txt setup.cfg pyproject.toml
	$(PYTHON) -m venv $(if $(FROM_OUTSIDE),--without-pip) $(VENV)
	$(INSTALL) -r requirements.txt
	@printf '%s\n' '#!$(CURDIR)/$(BIN)/python' 'import sys' 'sys.path.insert(0, "$(CURDIR)")' \
		'from ollama_proxy.cli import main' 'sys.exit(main())' > $(BIN)/ollama-proxy
	@chmod +x $(BIN)/ollama-proxy
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.installed
	$(INSTALL) -r requirements-dev.txt
	@touch $@

# Packages that only some upstreams need; each extra has a lock file of its own.
$(VENV)/.extra-%: requirements-%.txt $(VENV)/.installed
	$(INSTALL) -r $<
	@touch $@

install: $(VENV)/.installed $(EXTRAS:%=$(VENV)/.extra-%)  ## virtual environment with the locked packages; EXTRAS=litellm: and LiteLLM's; EXTRAS=otel: and OpenTelemetry's

dev: $(VENV)/.dev  ## the same with the tools for tests

run: install  ## gateway in the foreground on HOST:PORT (0.0.0.0:8080)
	@exec $(BIN)/python -m ollama_proxy.cli run

# Tests start hundreds of interpreters, and each would compile every module again.
test long quick: export PYTHONDONTWRITEBYTECODE =

test: dev  ## everything once, in about 12 minutes
	@BIN=$(BIN) sh tests/run.sh

long: dev  ## all of it at full length: soak, both doors for every row, 200 kills, all cuts, all assistants; in an hour
	@BIN=$(BIN) LONG=1 BOTH_DOORS=1 ALL_CUTS=1 FUZZ_EXAMPLES=2000 RECORDS_KILLS=200 RECORDS_STARTS=10 sh tests/run.sh

quick: check  ## format, lint, types, unit tests and golden cases, in two minutes
	@BIN=$(BIN) sh tests/quick.sh

clients: dev  ## coding assistants and frameworks themselves against the gateway, after installing them in .cache
	@$(BIN)/python -m tests.clients.install
	@LONG=1 $(BIN)/python -m pytest tests/clients

mutations: dev  ## whether tests catch each wrong change of tests/mutations; CHOSEN="retries wire": only these
	@$(BIN)/python -m tests.mutations $(CHOSEN)

check: dev  ## format, lint, types
	$(BIN)/ruff format --check ollama_proxy tests benchmarks wsgi.py config
	$(BIN)/ruff check ollama_proxy tests benchmarks wsgi.py config
	$(BIN)/mypy

# What the site is made of, with the tree of the repository: pages, and the files that they link to.
DOCS_SOURCE ?= build/docs
SITE ?= build/site
docs: dev  ## the documentation as a website in build/site
	@rm -rf $(DOCS_SOURCE) && mkdir -p $(DOCS_SOURCE)
	@cp -r --parents *.md LICENSE docs/* deploy/*.md deploy/nginx/* benchmarks/*.md tests/*.md tests/recordings/*.md config/config.yaml $(DOCS_SOURCE)
	@DOCS_SOURCE=$(DOCS_SOURCE) NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --site-dir $(SITE)

translations: dev  ## the texts of the admin pages: adds new ones to messages.po, compiles it, lists what is not translated
	@$(BIN)/python -m tests.translations

bench: dev  ## CPU per request and per token, latency and memory against the budgets; BENCH=--check: fail if one is exceeded
	$(BIN)/python -m benchmarks $(BENCH)

queueing: dev  ## the queue's decisions against first come, first served, in a simulation; QUEUEING=--write: renew the plots
	$(BIN)/python -m benchmarks.queueing $(QUEUEING)

soak: dev  ## streams for ten minutes while servers restart, and a report; SOAK_S=60 SOAK_STREAMS=150: less of it
	@$(BIN)/python -m benchmarks.soak
	@SHARING_S=$${SOAK_S:-600} $(BIN)/python -m pytest -q tests/reliability/test_security_sharing.py

lock: dev  ## renew the hash-locked requirement files
	$(BIN)/python -m piptools compile --quiet --upgrade --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --output-file requirements.txt setup.cfg
	$(BIN)/python -m piptools compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --output-file requirements-dev.txt requirements-dev.in
	$(BIN)/python -m piptools compile --quiet --upgrade --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --extra litellm --constraint requirements-dev.txt --output-file requirements-litellm.txt setup.cfg
	$(BIN)/python -m piptools compile --quiet --upgrade --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --extra otel --constraint requirements-dev.txt --output-file requirements-otel.txt setup.cfg
	$(BIN)/python -m piptools compile --quiet --upgrade --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --output-file tests/second/requirements.txt tests/second/requirements.in
	for each in tests/clients/programs/*/package.json; do npm install --prefix $$(dirname $$each) --package-lock-only --ignore-scripts --omit=optional --silent; done
	for each in $(basename $(wildcard tests/clients/programs/*/requirements.in)); do $(BIN)/python -m piptools compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --output-file $$each.txt $$each.in; done

clean:  ## remove what the other commands made (not state/ and logs/)
	rm -rf $(VENV) .cache build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache benchmarks/results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
