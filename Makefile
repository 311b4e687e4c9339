# What CI runs is `make check` and `make test`; what a newcomer runs is `make run`.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin

.PHONY: help setup run test check format bench soak fuzz lock metrics-page stack-env clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make the environment in .venv, with eventsink in .venv/bin
	@scripts/setup

# A shell of a cloud exports PORT for itself: only one that is given to make counts.
run: setup ## set up, then start everything in one process on the embedded default; PORT=9090: on that port
	@exec $(BIN)/eventsink up $(if $(findstring command line,$(origin PORT)),--port '$(PORT)')

# Three on two cores: a quarter of the time a test waits for a server. Measured: 981 s with two, 853 s with three.
test: setup ## set up, install the servers that the tests start, run every test
	@scripts/install-test-servers
	@scripts/install-test-specs
	EVENTSINK_TEST_NO_SKIP=1 $(BIN)/python -m pytest -m "" -n 3 --dist loadfile --no-loadscope-reorder

check: setup ## format, lint and types; starts no server
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup ## put files into the format that check wants
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## measure against what a user would otherwise use, with a table of ratios
	@scripts/install-test-servers
	@scripts/install-bench-tools
	@$(BIN)/python -m pip --disable-pip-version-check --no-input -qq install --require-hashes \
		--requirement requirements-bench.lock
	@$(BIN)/python -m bench

soak: setup ## what takes too long for make test: a million events, memory within its limit
	@$(BIN)/python -m bench.soak

fuzz: setup ## property tests of what reads foreign bytes, of every answer and every rollup, with many more examples
	$(BIN)/python -m pytest --hypothesis-profile=fuzz --timeout=0 \
		tests/topology/test_rabbitmq_frames.py tests/topology/test_rabbitmq.py tests/schemas \
		tests/web/test_fuzz.py tests/web/test_contract.py tests/test_rollups_by_oracle.py \
		tests/monitors/test_access_log.py tests/monitors/test_following.py

lock: setup ## resolve the dependencies of pyproject.toml again, into the lock files
	@scripts/lock

metrics-page: setup ## write docs/metrics.md anew, of topology/metrics.py
	$(BIN)/python -m scripts.metrics_page >docs/metrics.md.new
	mv docs/metrics.md.new docs/metrics.md

stack-env: ## write .env with random passwords for `docker compose up`
	@scripts/stack-env

.PHONY: dashboards
dashboards: setup ## write grafana/dashboards anew, of grafana/*.py
	@$(BIN)/python -m grafana

clean: ## remove the environment, caches and builds; keeps data/ and .env
	rm -rf .venv build dist *.egg-info web/page/node_modules screenshots .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
