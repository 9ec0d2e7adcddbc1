# make demo | test | lint | docs | bench | package | clean: each sets up .venv first, once, and again when what it is made of changes.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
COMPILED := .venv/.compiled

export OMP_NUM_THREADS ?= 1
# Compiled files are kept even where this is set, as in many containers: without them imports take twice as long.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test lint docs bench package clean

demo: $(READY)
	$(BIN)/turnwise demo --out demo

test: $(READY) $(COMPILED)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Warnings are errors: a link that leads nowhere, a page that no other leads to. -E reads every page again, as a page that
# did not change may stand on a docstring or a page that did.
docs: $(READY)
	$(BIN)/sphinx-build -q -E -W --keep-going -c docs . build/docs

bench: $(READY)
	set -e; for file in benchmarks/*.py; do $(BIN)/python $$file; done

# A wheel, installed with what it needs into an environment of its own, and a newcomer's first commands far from here.
# PYTHON says for which Python; CONSTRAINTS= installs the newest of everything.
CONSTRAINTS ?= -c constraints.txt
package:
	rm -rf build/package
	$(PYTHON) -m pip wheel -q --no-deps -w build/package .
	$(PYTHON) -m venv build/package/venv
	build/package/venv/bin/pip install -q --disable-pip-version-check build/package/*.whl $(CONSTRAINTS)
	cd / && env -u PYTHONPATH $(CURDIR)/build/package/venv/bin/python $(CURDIR)/tests/packages/smoke.py $(CURDIR)/src

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis demo dist build
	find src -name "*.nb[ic]" -delete

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("turnwise needs Python 3.11 or newer, but $(PYTHON) is %d.%d; try make PYTHON=python3.11" % v[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -e '.[data,fast,dev]' -c constraints.txt
	touch $@

# The solver's kernels, once: both workers of the tests would compile them at the same time.
$(COMPILED): $(READY) $(wildcard src/turnwise/exact/compiled.py src/turnwise/exact/sarsop/*.py)
	$(BIN)/turnwise solve tiger > /dev/null
	touch $@
