# make train: set up and train configs/msssim.py; rerun it to resume.
# make test:  set up and run every test.     make quick: without the slow ones.
# make notebooks: execute the notebooks in a temporary copy; executed ones go to build/notebooks.
# make lint:  formatting, lint and types.    make lock:  renew requirements.lock.
# make floors: run quick tests with the lowest versions that pyproject.toml allows.
#
# EXTRA=cuda12 (or cuda13, tpu, demo, notebooks, onnx, torch) installs that extra too, and
# EXTRA=torch,onnx several. PYTHON names another interpreter, 3.11 or later. ISR_DATA is the folder of
# benchmark images that some tests read.

PYTHON ?= python3
EXTRA ?=
CONFIG ?= configs/msssim.py
comma := ,
extras := test$(if $(EXTRA),$(comma)$(EXTRA))
ready := .venv/ready-$(subst $(comma),-,$(extras))

.PHONY: train test quick notebooks run-notebooks lint lock floors clean

train: $(ready)
	.venv/bin/python run.py --config $(CONFIG)

test: $(ready)
	.venv/bin/python -m pytest -n 2 --dist worksteal

quick: $(ready)
	.venv/bin/python -m pytest -n 2 --dist worksteal -m "not slow"

notebooks:
	$(MAKE) run-notebooks EXTRA=notebooks

run-notebooks: $(ready)
	.venv/bin/python notebooks/execute.py --out build/notebooks

lint: $(ready)
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/pyright --pythonpath .venv/bin/python

lock: $(ready)
	.venv/bin/python -m pip install --quiet uv
	.venv/bin/uv pip compile pyproject.toml --extra test --extra notebooks --extra onnx --extra demo --universal --upgrade --generate-hashes \
	  --python-version 3.11 --no-emit-index-url --no-header --no-annotate --quiet -o requirements.lock
	# A pin for the extra torch, which the tests of weights use; its own dependencies stay free.
	echo "torch==2.13.0" >> requirements.lock

floors:
	test -x .venv-floors/bin/python || $(PYTHON) -m venv .venv-floors
	.venv-floors/bin/python -m pip install --quiet uv
	.venv-floors/bin/uv pip install --quiet --python .venv-floors/bin/python \
	  --resolution lowest-direct --editable ".[test]"
	.venv-floors/bin/python -m pytest -n 2 --dist worksteal -m "not slow" -o filterwarnings=default

clean:
	rm -rf .venv .venv-floors build *.egg-info

# The lock constrains, so that an extra's packages are pinned only when they are wanted; pip checks
# hashes only where everything has one, so they are compared afterwards.
$(ready): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "isr_jax needs Python 3.11 or later; name one by make PYTHON=python3.12" >&2; exit 1; }
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	sed -e '/--hash=/d' -e 's/ *\\$$//' requirements.lock > .venv/constraints.txt
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --report .venv/report.json \
	  --constraint .venv/constraints.txt --editable ".[$(extras)]"
	.venv/bin/python .ci/check_hashes.py .venv/report.json requirements.lock
	touch $@
