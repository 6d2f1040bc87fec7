# The two commands that a fresh machine needs: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
DEMO := demo

.PHONY: demo test test-slow test-gpu test-as-gpu coverage lint docs clean

# Noisy pictures in, denoised ones out: by the model that ships, and by the same after it has had
# two minutes to get used to these pictures.
demo: $(VENV)/installed
	$(PY) -m cbsn demo $(DEMO)
	$(PY) -m cbsn denoise $(DEMO)/noisy --out $(DEMO)/denoised
	$(PY) -m cbsn denoise $(DEMO)/noisy --out $(DEMO)/adapted --adapt 2 --adapt_save $(DEMO)/model
	$(PY) -m cbsn evaluate $(DEMO)/noisy --clean $(DEMO)/clean \
	  --denoised $(DEMO)/denoised $(DEMO)/adapted --out $(DEMO)/report

test: $(VENV)/installed-dev
	$(PY) -m pytest -n auto -m 'not slow and not gpu'

test-slow: $(VENV)/installed-dev
	$(PY) -m pytest -n auto -m slow

# In one process, as some of these limit or fill the GPU's memory.
test-gpu: $(VENV)/installed-dev
	$(PY) -m pytest -m gpu -rs

# On a CPU, what the fast tests would do on a GPU; see tests/as_gpu.py.
test-as-gpu: $(VENV)/installed-dev
	$(PY) -m pytest -n auto -p tests.as_gpu -m 'not slow and not gpu'

# What the fast tests run of the package; what a process of its own runs is not seen.
coverage: $(VENV)/installed-dev
	$(PY) -m pytest -n auto -m 'not slow and not gpu' --cov --cov-report=term:skip-covered

lint: $(VENV)/installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# Runs the gallery's examples, which takes some minutes.
docs: $(VENV)/installed-docs
	$(PY) -m sphinx -W --keep-going docs docs/_build/html

clean:
	rm -rf $(VENV) $(DEMO) docs/_build docs/gallery

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PY) -m pip install --quiet '.[dev]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(PY) -m pip install --quiet '.[docs]'
	touch $@
