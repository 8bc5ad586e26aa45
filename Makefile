# Three commands: `make test`, `make demo` and `make docs`. Each creates .venv and installs what it needs.
# `make pictures` makes the pictures of the documentation anew.
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint docs pictures browser clean

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) --editable .
	touch $@

# One installation for all that is tested: pip looks through every package anew each time.
$(VENV)/.installed-test: pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) --editable '.[test,docs,obstore]'
	touch $(VENV)/.installed $@

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The reports are tested in headless Chromium, as Debian and its kin package it.
browser:
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || \
	echo 'chromium is missing and could not be installed: install it for the tests of the reports'

# The site, into site/: strict, so a broken link or an unknown name in the reference is an error.
docs: $(VENV)/.installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The pictures of the tutorial and of the pages "Bring your ...", by the commands that these pages show; and those of the
# methods, each after a training of a minute or so.
pictures: $(VENV)/.installed-test browser
	$(BIN)/python docs/pictures.py
	$(BIN)/python docs/method_pictures.py

test: lint docs browser
	$(BIN)/python -m pytest

# Networks of other packages that are too heavy for `make test`, in an environment of their own (1.7 GB, 10 minutes).
# Cellpose 3 and 4 exclude each other; version 3 runs with a newer numpy than it says.
ADAPTERS := .venv-adapters
test-adapters:
	test -x $(ADAPTERS)/bin/python || $(PYTHON) -m venv $(ADAPTERS)
	$(ADAPTERS)/bin/pip install --quiet --constraint $(CONSTRAINTS) --editable '.[stardist,instanseg,bioimageio,cellpose]' \
		'pytest>=8.4' 'pytest-timeout>=2.4'
	$(ADAPTERS)/bin/python -m pytest --confcutdir tests/packages tests/packages
	$(ADAPTERS)/bin/pip install --quiet --no-deps cellpose==3.1.1.3
	$(ADAPTERS)/bin/python -m pytest --confcutdir tests/packages tests/packages

demo: $(VENV)/.installed
	$(BIN)/platelayer demo demo

clean:
	rm -rf $(VENV) demo site
