# make lab    opens the course in JupyterLab       make test   runs every test
# Each makes the environment .venv first, or adds to it what it needs. `make help` lists the rest.

PYTHON ?= python3
# The versions to install; constraints-oldest.txt has the oldest torch.
CONSTRAINTS ?= constraints.txt
# How many tests run at once, each with one thread.
WORKERS ?= 2
PY := .venv/bin/python
PYTEST := $(PY) -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help env lab test check lint notebooks demo release grade site clean
.DEFAULT_GOAL := help

help:  ## list these commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

# What a target needs of pyproject.toml's extras is installed when it is first used, and again when its versions change.
.venv/.lab: EXTRAS := lab
.venv/.grade: EXTRAS := lab,grade
.venv/.site: EXTRAS := lab,site
.venv/.test: EXTRAS := lab,export,tensorboard,grade,site,test
.venv/.lab .venv/.grade .venv/.site .venv/.test: pyproject.toml $(CONSTRAINTS) | $(PY)
	@echo "Installing $(EXTRAS) into .venv: a few minutes, once."
	$(PY) -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[$(EXTRAS)]'
	@touch $@ $(if $(findstring test,$(EXTRAS)),.venv/.lab .venv/.grade .venv/.site)

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "spvit_mini needs Python 3.10 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --upgrade pip

env: .venv/.test  ## make .venv with everything, for lab, test, grade and site

lab: .venv/.lab  ## open the course in JupyterLab; more options: make lab LAB_ARGS=--no-browser
	$(PY) -m spvit_course lab $(LAB_ARGS)

test: lint  ## run all tests: about twelve minutes of two cores
	$(PYTEST)

check: .venv/.test  ## run the fast tests, two cases of each: under a minute
	$(PYTEST) --smoke -m 'not slow and not lessons and not browser'

lint: .venv/.test  ## check the style and the types
	$(PY) -m ruff check .
	$(PY) -m mypy

notebooks: .venv/.lab  ## run the lessons again and store their outputs
	$(PY) -m spvit_course execute notebooks/*.ipynb

demo: .venv/.lab  ## train vit_mini and spvit_mini side by side in under two minutes
	$(PY) -m spvit_experiments demo

release: .venv/.grade  ## make a problem set for students: make release SET=set_1 VARIANT=x_first
	$(PY) -m spvit_course release $(SET) $(if $(VARIANT),--variant $(VARIANT)) $(GRADE_ARGS)

grade: .venv/.grade  ## grade what was handed in: make grade SET=set_1
	$(PY) -m spvit_course grade $(SET) $(GRADE_ARGS)

site: .venv/.site  ## build the course's pages into build/site: open index.html there
	$(PY) -m spvit_course site

clean:  ## remove what was built; runs, data, your work and a class's folder stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find spvit_mini spvit_course spvit_experiments tests -name __pycache__ -prune -exec rm -rf {} +
