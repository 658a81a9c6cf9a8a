# Each target does all its own set-up: a fresh machine needs Python 3.11+ and nothing of ours.
PYTHON ?= python3
BIN := .venv/bin

# Too large for every run of the tests; each brings libraries of its own.
FRAMEWORKS := plotly==7.1.0 polars==2.1.0 ray==2.60.0 torch==2.13.0

.PHONY: demo test frameworks check bench soak lock clean

demo: .venv/ready  ## run the main job: train, kill the daemon, lose nothing
	@$(BIN)/dropoff demo

test: .venv/ready check  ## pass the tests
	$(BIN)/pytest -n 2 --dist worksteal -m "not quiet"
	$(BIN)/pytest -n 2 --dist loadfile -m quiet tests/faults

frameworks: .venv/ready  ## try what plotly, polars, ray and torch need, which `make test` leaves out; installs 1.3 GB
	$(BIN)/pip install --quiet --disable-pip-version-check $(FRAMEWORKS)
	$(BIN)/pytest tests/sdk/frameworks

check: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/ready  ## print every figure beside its yardstick, measured in one run
	$(BIN)/python tests/bench

soak: .venv/ready  ## the same tests with many more rounds; about an hour
	DROPOFF_TEST_ROUNDS=1000 DROPOFF_TEST_CUTS=100 DROPOFF_TEST_KILLS=5000 DROPOFF_TEST_ALL=1 \
		$(BIN)/pytest --timeout 7200 tests/acceptance tests/faults tests/simulation

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

lock:  ## write requirements.lock anew from pyproject.toml; needs uv
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --python-version 3.11 \
		--extra demo --group dev pyproject.toml -o requirements.lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
