# Everything a clone needs: `make demo` and `make test` each do all set-up themselves.
SHELL := bash
PY := .venv/bin/python
UV := .venv/bin/uv
# `make install CPU=1` takes the small CPU-only wheels of torch where that index can be reached.
BACKEND := $(if $(CPU),--torch-backend cpu,)

# Processes the tests are dealt out to, a file at a time.
JOBS ?= 2

.PHONY: install lock demo test test-slow check lint types wheel bench clean

install: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "anomaly needs Python 3.11 or newer")'
	test -x $(PY) || python3 -m venv .venv
	test -x $(UV) || $(PY) -m pip install --quiet --disable-pip-version-check uv
	$(UV) pip sync --quiet --python $(PY) $(BACKEND) requirements.lock
	$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .
	touch $@

lock:
	$(UV) pip compile --quiet --universal --python-version 3.11 --group dev pyproject.toml -o requirements.lock --no-emit-index-url --no-header

demo: install
	$(PY) -m anomaly demo --output demo --overwrite

test: install
	$(PY) -m pytest -q -m "not slow" --numprocesses $(JOBS) --dist loadscope

test-slow: install
	$(PY) -m pytest -q -m slow

lint: install
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

types: install
	$(PY) -m mypy anomaly

wheel: install
	$(PY) tests/wheel_check.py

check: lint types wheel test

bench: install
	$(PY) benchmarks/run_all.py

clean:
	rm -rf .venv build dist demo .mypy_cache .ruff_cache .pytest_cache
