# The one list of commands. `make` alone prints it.
BIN := .venv/bin
GO = $(CURDIR)/scripts/go
PYTEST_ARGS ?=
# Files of tests side by side, for they wait more than they work; each worker has its own servers and addresses.
SIDE_BY_SIDE = -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test test-guestd test-server test-e2e test-pool test-alone test-desktop attack chaos fuzz check format bench bench-compare lock clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup: ## install what is missing on this machine, build what is not built
	@scripts/setup

demo: setup ## start Warren, run a script that uses only the e2b package, stop
	@$(BIN)/python scripts/demo.py

serve: setup ## start the server in the foreground, on the default ports
	@$(BIN)/warren serve

test: test-guestd test-server test-e2e test-pool test-alone ## everything: real runtimes, real client, real network; needs root

test-guestd: setup
	$(MAKE) --no-print-directory -C guestd build test GO="$(GO)"

test-server: setup
	@scripts/setup tests
	$(BIN)/pytest --ignore=tests/e2e -m "not alone" $(SIDE_BY_SIDE) $(PYTEST_ARGS)

# In a process of its own: the client reads SSL_CERT_FILE once, when it is first used.
test-e2e: setup
	@scripts/setup tests
	PATH="$$PATH:$(CURDIR)/$(BIN)" $(BIN)/pytest tests/e2e -m "not alone" $(SIDE_BY_SIDE) $(PYTEST_ARGS)

POOLED ?= tests/e2e/test_lifecycle.py tests/e2e/test_commands.py
test-pool: setup ## e2e tests once more, their sandboxes from a pool (POOL= spares of each runtime, POOLED=tests/e2e for all)
	WARREN_TEST_POOL=$(or $(POOL),2) PATH="$$PATH:$(CURDIR)/$(BIN)" $(BIN)/pytest $(POOLED) -m "not alone" $(SIDE_BY_SIDE) $(PYTEST_ARGS)

# What takes the whole machine, and would starve what runs beside it.
test-alone: setup
	PATH="$$PATH:$(CURDIR)/$(BIN)" $(BIN)/pytest tests/e2e tests/security -m alone $(PYTEST_ARGS)

test-desktop: setup ## the desktop template: build it (1.7 GB, some minutes once), drive it, look at it in a browser
	@scripts/setup tests desktop
	WARREN_TEST_DESKTOP=1 PATH="$$PATH:$(CURDIR)/$(BIN)" $(BIN)/pytest tests/e2e/test_desktop.py $(PYTEST_ARGS)

TARGET ?= runsc crun
BOARD := build/board.jsonl
ATTACK = WARREN_ATTACK_WHOLE=1 $(BIN)/pytest -q -m "threat or switched_off" -p tests.security.board.recorder --board=$(BOARD) $(PYTEST_ARGS)
attack: setup ## attack sandboxes from inside and outside and print what held; TARGET=docker: a plain `docker run`
	@mkdir -p build && rm -f $(BOARD) && touch $(BOARD)
ifeq ($(TARGET),docker)
	-WARREN_ATTACK_TARGET=docker $(ATTACK) tests/security/test_probes.py
else
	@$(MAKE) --no-print-directory -C guestd build GO="$(GO)"
	@scripts/setup tests
	-$(ATTACK) --ignore=tests/e2e
	-PATH="$$PATH:$(CURDIR)/$(BIN)" $(ATTACK) tests/e2e
endif
	@$(BIN)/python -m tests.security.board.score $(BOARD)

check: ## what needs no root: style, types, layers, budgets
	@scripts/setup packages python
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-cache
	$(BIN)/shellcheck --exclude=SC2015 scripts/setup scripts/go scripts/uv scripts/build-* templates/*.sh templates/*/*.sh templates/code-interpreter/start .ci/run
	PATH="$$($(GO) env GOROOT)/bin:$$PATH" $(MAKE) --no-print-directory -C guestd check GO="$(GO)"
	$(BIN)/pytest tests/tidy

format: ## let the formatters have their way
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	PATH="$$($(GO) env GOROOT)/bin:$$PATH" gofmt -w guestd/cmd guestd/internal

fuzz: ## hostile bytes for some minutes, for what reads them on either side; keeps what it finds
	FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),3000) $(BIN)/pytest tests/fuzz tests/unit/test_guest_logs.py $(PYTEST_ARGS)
	FUZZ_EXAMPLES=$(or $(API_EXAMPLES),100) $(BIN)/pytest tests/unit/test_api_document.py $(PYTEST_ARGS)
	$(MAKE) --no-print-directory -C guestd fuzz GO="$(GO)" FUZZTIME=$(or $(FUZZTIME),10s)

bench: setup ## print the numbers that SPEC.md promises
	@$(BIN)/python -m bench

bench-compare: setup ## the same measures on the commit before (COMMIT=) and on this checkout, side by side
	@$(BIN)/python -m bench.compare $(COMMIT)

chaos: setup ## kill the server at every step, then 3,200 rounds while everything dies at random: an hour (CHAOS_PARTS=, CHAOS_SECONDS=)
	WARREN_ALL_FAULTS=1 $(BIN)/pytest -q tests/integration/test_oci_fault_table.py
	@scripts/setup tests
	@$(BIN)/python -m tests.chaos

lock: ## requirements.lock and the code interpreter's lists, from what they are made of
	scripts/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --quiet \
		--no-emit-index-url --custom-compile-command "make lock" --upgrade \
		pyproject.toml requirements.in --output-file requirements.lock
	for list in kernel server; do \
		scripts/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --quiet \
			--no-emit-index-url --custom-compile-command "make lock" --upgrade \
			templates/code-interpreter/$$list.in --output-file templates/code-interpreter/$$list.txt || exit; \
	done

clean: ## remove what was built in this checkout; cache and state folder stay
	rm -rf .venv dist build guestd/bin .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
