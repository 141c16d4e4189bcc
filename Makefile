# make train: set up and train configs/msssim.py; rerun it to resume.
# make test:  set up and run every test.     make quick: without the slow ones.
# make rebuild: begin to train every pretrained model again, and compare with its card; needs ISR_DATA.
# make notebooks: execute the notebooks in a temporary copy; executed ones go to build/notebooks.
# make lint:  formatting, lint and types.    make lock:  renew requirements.lock.
# make floors: run quick tests with the lowest versions that pyproject.toml allows.
# make python: say which Python it takes.
#
# EXTRA=cuda12 (or cuda13, tpu, demo, heic, notebooks, onnx, torch, video, wandb) installs that extra
# too, and EXTRA=torch,onnx several. PYTHON names the interpreter, 3.11 or later; by default the newest
# that is there, because JAX is faster on 3.12 and later. VENV is the folder of the environment. ISR_DATA
# is the folder of benchmark images that some tests read.

VENV ?= .venv
# A command python3.x may be there and fail, as one of pyenv's does.
PYTHON ?= $(shell for v in 3.14 3.13 3.12 3.11; do \
  for python in python$$v "$$(pyenv prefix $$v 2>/dev/null)/bin/python"; do \
    "$$python" -c 'import ensurepip, venv' 2>/dev/null && echo "$$python" && exit; \
  done; done; echo python3)
EXTRA ?=
CONFIG ?= configs/msssim.py
comma := ,
extras := test$(if $(EXTRA),$(comma)$(EXTRA))
ready := $(VENV)/ready-$(subst $(comma),-,$(extras))

.PHONY: train test quick rebuild notebooks run-notebooks lint lock floors python clean

train: $(ready)
	$(VENV)/bin/python run.py --config $(CONFIG)

test: $(ready)
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal

quick: $(ready)
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m "not slow"

rebuild: $(ready)
	ISR_REBUILD=1 $(VENV)/bin/python -m pytest tests/test_rebuild.py

notebooks:
	$(MAKE) run-notebooks EXTRA=notebooks

run-notebooks: $(ready)
	$(VENV)/bin/python notebooks/execute.py --out build/notebooks

lint: $(ready)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

lock: $(ready)
	$(VENV)/bin/python -m pip install --quiet uv
	$(VENV)/bin/uv pip compile pyproject.toml --extra test --extra notebooks --extra onnx --extra demo --extra video --extra heic --universal --upgrade --generate-hashes \
	  --python-version 3.11 --no-emit-index-url --no-header --no-annotate --quiet -o requirements.lock
	# A pin for the extra torch, which the tests of weights use; its own dependencies stay free.
	echo "torch==2.13.0" >> requirements.lock

floors:
	test -x .venv-floors/bin/python || $(PYTHON) -m venv .venv-floors
	.venv-floors/bin/python -m pip install --quiet uv
	.venv-floors/bin/uv pip install --quiet --python .venv-floors/bin/python \
	  --resolution lowest-direct --editable ".[test]"
	.venv-floors/bin/python -m pytest -n 2 --dist worksteal -m "not slow" -o filterwarnings=default

python:
	@echo $(PYTHON)

clean:
	rm -rf $(VENV) .venv-newer .venv-floors build *.egg-info

# The lock constrains, so that an extra's packages are pinned only when they are wanted; pip checks
# hashes only where everything has one, so they are compared afterwards.
$(ready): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "isr_jax needs Python 3.11 or later; name one by make PYTHON=python3.12" >&2; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	sed -e '/--hash=/d' -e 's/ *\\$$//' requirements.lock > $(VENV)/constraints.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --report $(VENV)/report.json \
	  --constraint $(VENV)/constraints.txt --editable ".[$(extras)]"
	$(VENV)/bin/python .ci/check_hashes.py $(VENV)/report.json requirements.lock
	touch $@
