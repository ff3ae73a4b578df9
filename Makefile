# make demo      from a fresh clone to a trained, evaluated model, in minutes
# make test      the tests that need seconds each
# See `make help`.

VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
PYTEST_ARGS ?=
WORKERS ?= 2
DEMO_DIR ?= runs/demo/savp
PLAY ?= data/pretrained/breakout-caddy
PORT ?= 8080

.DEFAULT_GOAL := help
.PHONY: help install install-dev install-torch demo play test test-all lint format check build-file lock benchmark package clean distclean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-14s %s\n", $$1, $$2}'

install: $(VENV)/.run.stamp  ## the environment .venv with the locked versions (Python 3.11 to 3.13; PYTHON=... picks one)

install-dev: $(VENV)/.dev.stamp  ## the same with what tests and lint need

install-torch: $(VENV)/.dev.stamp  ## PyTorch, for the tests that compare with it (gigabytes unless pip finds a CPU wheel)
	$(PIP) install --quiet "torch==2.13.0"
	$(PIP) install --quiet --no-deps "lpips==0.1.4"

$(PY):
	@PYTHON="$(PYTHON)" sh requirements/create_venv.sh "$(VENV)"

$(VENV)/.run.stamp: requirements/run.lock pyproject.toml | $(PY)
	$(PIP) install --quiet --require-hashes -r requirements/run.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev.stamp: requirements/dev.lock $(VENV)/.run.stamp
	$(PIP) install --quiet --require-hashes -r requirements/dev.lock
	@touch $@

demo: install  ## demo data, SAVP trained for some minutes, videos, and metrics against "repeat the last frame"
	$(PY) scripts/train.py --model=savp --hparams=hparams/demo/savp.json --output_dir=$(DEMO_DIR)
	$(PY) scripts/generate.py --checkpoint=$(DEMO_DIR)
	$(PY) scripts/evaluate.py --checkpoint=$(DEMO_DIR) --num_samples=10
	@$(PY) scripts/report_demo.py --run_dir=$(DEMO_DIR)

play: install  ## a trained CADDY to play in the browser (PLAY=run folder, PORT=8080)
	$(PY) scripts/play.py --checkpoint=$(PLAY) --web --open_browser --port=$(PORT)

test: install-dev $(if $(TORCH),install-torch)  ## the fast tests (PYTEST_ARGS=... is passed on; TORCH=1 installs PyTorch first)
	$(PY) -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(PYTEST_ARGS)

test-all: install-dev $(if $(TORCH),install-torch)  ## every test, long ones included
	$(PY) -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

lint: install-dev  ## ruff, and buildifier where npm is there
	$(PY) -m ruff check .
	sh requirements/buildifier.sh

format: install-dev  ## mends what ruff can mend
	$(PY) -m ruff check --fix .

build-file: install-dev  ## writes BUILD again from the tree
	$(PY) scripts/update_build.py

lock: $(VENV)/.run.stamp  ## resolves pyproject.toml again into requirements/*.lock
	PY="$(PY)" sh requirements/lock.sh

benchmark: install  ## speed and memory of SAVP at its published configuration, into benchmarks/results/
	$(PY) scripts/benchmark.py --model=savp --hparams=hparams/bair/savp.json --batch_size=2

package: install-dev  ## a wheel and a source archive in dist/
	$(PY) -m build --no-isolation --outdir dist .

clean:  ## removes what builds leave; runs/, data/ and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache node_modules
	find tfvid tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## removes the environment too
	rm -rf $(VENV)
