# Each target makes what it needs on a fresh machine with Python 3.11 or 3.12.
PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= runs/quickstart

.PHONY: quickstart test test-fast lint

quickstart: $(VENV)/run
	$(VENV)/bin/python run.py --config=configs/quickstart.py --workdir=$(WORKDIR)

test: $(VENV)/reference
	$(VENV)/bin/python -m pytest

# The inner loop: under 3 minutes on 2 cores.
test-fast: $(VENV)/dev
	$(VENV)/bin/python -m pytest -m "not slow"

lint: $(VENV)/dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

$(VENV)/run: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -r requirements.txt
	touch $@

$(VENV)/dev: requirements-dev.txt $(VENV)/run
	$(VENV)/bin/pip install --quiet -r requirements-dev.txt
	touch $@

# With the libraries that networks are compared with: PyTorch among them, so large.
$(VENV)/reference: requirements-reference.txt $(VENV)/dev
	$(VENV)/bin/pip install --quiet -r requirements-reference.txt
	touch $@
