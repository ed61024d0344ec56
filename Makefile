# make demo   sets itself up, trains a DCGAN on real images, says where the pictures are
# make test   sets itself up, runs the test suite
# make quick  the tests that take less than about five seconds each
# make long   every test, those of a minute and more too
# make soak   an hour of kills, bad files, options, calls, races and full disks; seeds are printed
# make gallery  trains every kind of GAN, writes docs/gallery.md; hours, goes on where it stopped
# make docs   builds the documentation as a static site in build/docs, checks its links
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# the many processes of the tests compile fastgan once
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo test quick long soak lint docs gallery gpu clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt install.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fastgan needs Python 3.11 or newer: make PYTHON=python3.12 setup" >&2; exit 2; }
	@$(PYTHON) install.py $(VENV)
	@touch $@

demo: setup
	@$(BIN)/fastgan demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/python tests/limits.py
	@if test -d fastgan/kernels; then $(BIN)/lint-imports; else \
	 echo "imports not checked: the checker follows links, and this checkout has none (core.symlinks)"; fi

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not long" --durations=12 -rs

quick: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not long" -rf

long: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -rs

soak: setup
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/robust/soak.py
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/robust/watch.py ill
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/robust/watch.py good

docs: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python docs/build.py build/docs

gallery: setup
	OMP_NUM_THREADS=1 $(BIN)/fastgan gallery

gpu:
	$(PYTHON) -m fastgan.bench --stages

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache
