# make lab    opens the course in JupyterLab       make test   runs every test
# Both make the environment .venv first where it is missing. `make help` lists the rest.

PYTHON ?= python3
PY := .venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# Make's own stamp: the environment is brought up to date when what it is made from has changed.
READY := .venv/.ready

.PHONY: help env lab test check lint notebooks demo release grade site clean
.DEFAULT_GOAL := help

help:  ## list these commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

env: $(READY)  ## make .venv from pyproject.toml, in the tested versions
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "spvit_mini needs Python 3.10 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --upgrade pip
	@echo "Installing torch, JupyterLab and the rest into .venv: a few minutes, once."
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[lab,export,tensorboard,grade,site,test]'
	@touch $(READY)

lab: $(READY)  ## open the course in JupyterLab; more options: make lab LAB_ARGS=--no-browser
	$(PY) -m spvit_course lab $(LAB_ARGS)

test: $(READY)  ## run all tests
	$(PY) -m ruff check .
	$(PY) -m pytest

check: $(READY)  ## run the fast tests: under two minutes
	$(PY) -m pytest -m 'not slow and not lessons and not browser'

lint: $(READY)  ## check the style
	$(PY) -m ruff check .

notebooks: $(READY)  ## run the lessons again and store their outputs
	$(PY) -m spvit_course execute notebooks/*.ipynb

demo: $(READY)  ## train vit_mini and spvit_mini side by side in under two minutes
	$(PY) -m spvit_experiments demo

release: $(READY)  ## make a problem set for students: make release SET=set_1 VARIANT=x_first
	$(PY) -m spvit_course release $(SET) $(if $(VARIANT),--variant $(VARIANT)) $(GRADE_ARGS)

grade: $(READY)  ## grade what was handed in: make grade SET=set_1
	$(PY) -m spvit_course grade $(SET) $(GRADE_ARGS)

site: $(READY)  ## build the course's pages into build/site: open index.html there
	$(PY) -m spvit_course site

clean:  ## remove what was built; runs, data, your work and a class's folder stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find spvit_mini tests -name __pycache__ -prune -exec rm -rf {} +
