# The book, its tests and their environment. `make help` lists the targets.

PROFILE ?= laptop
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# a ready environment keeps the PyTorch it was made with
HAS_TORCH := $(shell cat $(READY) 2>/dev/null)
TORCH ?= $(or $(HAS_TORCH),default)
TORCH_VERSION := 2.13.0
CPU_INDEX := https://download.pytorch.org/whl/cpu
FORCE ?=
# HASHES=1: install nothing but files with the SHA-256 in locks/
HASHES ?=
JOBS ?= 2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help setup book pdf test bench types lock hashes serve clean

define SAME_TORCH
@if [ -n '$(HAS_TORCH)' ] && [ '$(HAS_TORCH)' != '$(TORCH)' ]; then \
  echo "TORCH=$(TORCH): $(VENV) was set up with TORCH=$(HAS_TORCH); for the other one remove it first: rm -r $(VENV)" >&2; exit 2; \
fi
endef

help: ## list the targets
	@echo "make TARGET [PROFILE=smoke|laptop|paper] [TORCH=default|cpu] [PYTHON=python3.12] [JOBS=2] [HASHES=1]"
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)$$/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-10s %s\n", $$1, $$2}'

setup: $(READY) ## the virtual environment .venv, with the versions of requirements.lock
	$(SAME_TORCH)

book: $(READY) ## run the notebooks that need it and build the site: build/html/index.html
	$(SAME_TORCH)
	@$(BIN)/python -m llbook build --profile '$(PROFILE)' $(if $(FORCE),--force)

pdf: book ## the book as one file, printed by Chromium: build/llbook.pdf
	@$(BIN)/python -m llbook pdf

test: $(READY) ## the tests, a build of the whole book at the profile `smoke` among them
	$(SAME_TORCH)
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

bench: $(READY) ## the engine against baselines and the machine's limits: build/bench.json
	$(SAME_TORCH)
	@$(BIN)/python -m benchmarks

types: $(READY) ## the types of the package, checked by mypy
	$(SAME_TORCH)
	@$(BIN)/python -m mypy --cache-dir build/mypy

# Stamped only after success; a changed lock or pyproject.toml makes the stamp old.
$(READY): requirements.lock pyproject.toml
	@case '$(TORCH)' in default|cpu) ;; *) echo "TORCH: got '$(TORCH)'; expected default or cpu" >&2; exit 2;; esac
	$(SAME_TORCH)
	@set -e; \
	if [ -x $(BIN)/python ] && $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  echo "Updating $(VENV)"; \
	else \
	  for python in $(PYTHON) python3 python3.12 python3.11; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then echo "Python 3.11 or newer is needed and was not found; say where: make PYTHON=/path/to/python3.11" >&2; exit 2; fi; \
	  echo "Creating $(VENV) with $$found"; \
	  rm -rf $(VENV); \
	  $$found -m venv $(VENV); \
	fi
ifneq ($(HASHES),)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/$(TORCH).txt
else
ifeq ($(TORCH),cpu)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --index-url $(CPU_INDEX) torch==$(TORCH_VERSION)
endif
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
endif
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@echo '$(TORCH)' > $@

# What PyTorch needs for a GPU is pinned by PyTorch itself and differs between platforms.
lock: build/lock/bin/uv ## newest versions into requirements.lock and, with hashes, into locks/, from pyproject.toml
	@rm -f build/lock/compiled.txt
	@build/lock/bin/pip-compile --quiet --no-header --strip-extras --allow-unsafe \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
	  --upgrade-package 'torch==$(TORCH_VERSION)' --extra book --extra sweep --extra test --output-file build/lock/compiled.txt pyproject.toml
	@{ echo "# Exact versions of everything, made from pyproject.toml by 'make lock'."; \
	  awk '/^[^ #]/ {drop = /^(nvidia|cuda)-|^triton==/} !drop && !/^    #   (nvidia|cuda)-|^# / && NF' build/lock/compiled.txt \
	  | sed -E 's/^([^ =]+==[^ +]+)\+[A-Za-z0-9.]+/\1/'; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock
	@$(MAKE) --no-print-directory hashes

# default.txt is of PyPI: on Linux with what a GPU needs. In cpu.txt, Linux has PyTorch's CPU build.
HASHED = build/lock/bin/uv --quiet pip compile --generate-hashes --no-header --no-annotate --python-version 3.11.9
hashes: build/lock/bin/uv ## the SHA-256 of the files that requirements.lock may mean, into locks/
	@mkdir -p locks
	@$(HASHED) --universal --constraint requirements.lock --extra book --extra sweep --extra test \
	  pyproject.toml --output-file build/lock/uv.txt
	@sed -E "s/python_full_version < '3.13' and //g; s/ ; \(sys_platform == 'darwin'\) or \(sys_platform == 'linux'\)//" build/lock/uv.txt > build/lock/default.txt
	@echo 'torch==$(TORCH_VERSION)+cpu' | $(HASHED) --no-deps --default-index $(CPU_INDEX) - --output-file build/lock/torch.txt
	@{ echo '--extra-index-url $(CPU_INDEX)'; sed "s/+cpu/& ; sys_platform == 'linux'/" build/lock/torch.txt; \
	  awk '/^[^ ]/ {drop = /^(nvidia|cuda)-|^triton==/} !drop' build/lock/default.txt \
	  | sed "s/^torch==[^ ]*/& ; sys_platform == 'darwin'/"; } > build/lock/cpu.txt
	@mv build/lock/default.txt build/lock/cpu.txt locks/

build/lock/bin/uv:
	@python3 -m venv build/lock && build/lock/bin/python -m pip install --quiet --disable-pip-version-check 'pip-tools>=7.5' 'uv>=0.9'

serve: ## look at the built site at http://127.0.0.1:8000 (PORT=…)
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/html $(PORT)

clean: ## remove build/ (stored runs too) and .venv
	@rm -rf build $(VENV)
