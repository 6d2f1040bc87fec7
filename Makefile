# The two commands that a fresh machine needs: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
DEMO := demo

.PHONY: demo test test-long lint clean

# Noisy pictures in, denoised ones out, with the commands that a user would type.
demo: $(VENV)/installed
	$(PY) -m cbsn.demo pictures $(DEMO)
	$(PY) prepare_dataset.py --dataset $(DEMO)/noisy --out $(DEMO)/patches
	$(PY) train.py --name model --checkpoints $(DEMO) --dataset $(DEMO)/patches \
	  --channel 16 --block 4 --maxiter 1000 --batchsize 2 --lr 2e-3 --ema 0.99 \
	  --val_noisy $(DEMO)/noisy --val_clean $(DEMO)/clean
	$(PY) infer.py --modelpath $(DEMO)/model --imagepath '$(DEMO)/noisy/*.png' \
	  --savepath $(DEMO)/denoised
	$(PY) -m cbsn.demo report $(DEMO)

test: $(VENV)/installed-dev
	$(PY) -m pytest -n auto -m 'not long'

test-long: $(VENV)/installed-dev
	$(PY) -m pytest -m long

lint: $(VENV)/installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

clean:
	rm -rf $(VENV) $(DEMO)

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PY) -m pip install --quiet '.[dev]'
	touch $@
