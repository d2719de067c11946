# What people do. `make help` lists it.
PYTHON ?= python3
MODEL ?= embedded
PORT ?= 8000
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help book test serve lint clean

help:  ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

book: .venv/.complete  ## Execute the chapters that changed and build the site: _build/html (MODEL=sd15 for another model)
	$(BIN)/essay build --model "$(MODEL)"

test: .venv/.complete  ## Run the tests, with coverage
	$(BIN)/python -m pytest --cov --cov-report=term

serve: book  ## Build, then show the site at http://localhost:8000 (PORT=8001 for another port)
	$(BIN)/python -m http.server --directory _build/html $(PORT)

lint: .venv/.complete  ## Check style, spelling and workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/zizmor --offline --quiet .github
	@if command -v actionlint >/dev/null; then actionlint; \
	    else echo "actionlint is not installed: workflows were checked by zizmor alone"; fi

clean:  ## Remove everything that can be made again, except .venv
	rm -rf _build .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*

.venv/.complete: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed: make book PYTHON=python3.12" >&2; exit 1; }
	@# Without Debian's python3-venv a python is left behind that has no pip.
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,train]'
	# Only its schema of CITATION.cff is read; its own dependencies are too old for Jupyter Book.
	$(BIN)/python -m pip install --quiet --no-deps cffconvert==2.0.0
	touch $@
