# SPDX-License-Identifier: Apache-2.0
# Each target calls vllm-build, pytest or a program of the tree. `make help` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help package serve-demo test coverage test-fast test-full toolchain toolchain-update fetch render stamp doctor lint format bench-build docs docs-links clean sanitize emulate emulate-gfx gpu gpu-tests gpu-sanitize bench-engine bench-kernels bench-check bench-gpu bench-reuse

# In an empty environment (env -i, cron) PATH is unset. Shells then use a default; make does not.
export PATH := $(or $(PATH),/usr/local/bin:/usr/bin:/bin)
PYTHON ?= python3
VARIANT ?= cpu
PORT ?= 8000
DEVICE ?= cuda
ARCH ?= gfx1100
BIN := .venv/bin
VENV := $(BIN)/.installed
DEV := $(BIN)/.installed-dev
DOCS := $(BIN)/.installed-docs
GFX := $(BIN)/.installed-gfx
# Quotes a value as one shell word, whichever characters it contains. Only ARGS is several words.
quoted = '$(subst ','\'',$(1))'
# Ignores the caller's Python settings. vllm-build does this itself (scripts/bin/vllm-build).
CLEAN := env -u PYTHONPATH -u PYTHONHOME
# One process more than there are processors, because tests wait; tests that share what a fixture makes stay together (tests/support/group_order.py).
PARALLEL := -n $(shell expr $$(nproc) + 1) --maxprocesses 8 --dist loadfile
# Builds use all processors themselves. Three at a time hide the waiting of each other, and fit into 16 GiB of memory.
# The next run removes the folders of the quick tests; to remove them now would take minutes.
THREE := -n 3 --dist loadfile -o tmp_path_retention_count=2
# pip, which takes from its configuration only how to reach an index: constraints, `user` and `target` are not meant for .venv.
PIP := $(CLEAN) $(BIN)/python -I scripts/vllm_build/util/processes/pip_process.py --quiet

$(VENV): requirements/tools.txt scripts/pyproject.toml scripts/bin/vllm-build
	$(CLEAN) $(call quoted,$(PYTHON)) -m venv --clear .venv
	$(PIP) install -r requirements/tools.txt
	$(PIP) install --no-deps --no-build-isolation -e scripts
	touch $@

$(DEV): $(VENV) requirements/dev.txt
	$(PIP) install -r requirements/dev.txt
	touch $@

$(DOCS): $(VENV) requirements/docs.txt
	$(PIP) install -r requirements/docs.txt
	touch $@

$(GFX): $(DEV) requirements/gfx.txt
	$(PIP) install --require-hashes --only-binary :all: -r requirements/gfx.txt
	touch $@

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' Makefile
	@echo 'PYTHON=python3 is the interpreter: one name or path, which may contain spaces, without arguments (not "uv run python")'

package: $(VENV)  ## build, test, install and run the conda packages of VARIANT (cpu)
	$(BIN)/vllm-build package $(call quoted,$(VARIANT))

serve-demo: $(VENV)  ## build what is missing, and serve a small model of random weights on PORT (8000) of 127.0.0.1 until Ctrl-C
	$(BIN)/vllm-build package $(call quoted,$(VARIANT)) --serve $(call quoted,$(PORT))

test: $(DEV)  ## run all tests, with a real build of the CPU packages
	$(CLEAN) $(BIN)/python -m pytest -m "not slow" $(PARALLEL)
	$(CLEAN) $(BIN)/python -m pytest -m slow $(THREE)

coverage: $(DEV)  ## run all tests and measure the branch coverage of the build library, which doubles the time of the quick ones
	$(CLEAN) $(BIN)/python -m pytest -m "not slow" $(PARALLEL) --cov --cov-report= --cov-fail-under=0
	$(CLEAN) $(BIN)/python -m pytest -m slow $(THREE) --cov --cov-append

test-fast: $(DEV)  ## run the tests that build nothing
	$(CLEAN) $(BIN)/python -m pytest -m "not slow" $(PARALLEL)

test-full: $(DEV)  ## run the slow tests with those that guard rare paths: hours, 2 GB of downloads; ARGS=tests/recipe/test_same_bytes.py
	VLLM_TEST_FULL=1 $(CLEAN) $(BIN)/python -m pytest -m slow $(THREE) $(ARGS)

toolchain: $(VENV)  ## build the changed packages of the local toolchain channel
	$(BIN)/vllm-build toolchain

toolchain-update: $(VENV)  ## lock the versions that the mirrors have now
	$(BIN)/vllm-build toolchain --update

fetch: $(VENV)  ## download the locked third-party sources into the cache, where builds with pip find them
	$(BIN)/vllm-build fetch

render: $(VENV)  ## show the packages of every variant
	$(BIN)/vllm-build render

stamp: $(VENV)  ## write the digests of the tree into recipe/variants.yaml
	$(BIN)/vllm-build stamp

doctor: $(VENV)  ## show what this machine has for a build
	$(BIN)/vllm-build doctor

sanitize:  ## test the CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer; PYTHON has torch
	$(call quoted,$(PYTHON)) tests/kernels/sanitize.py

emulate:  ## test the GPU kernels without a GPU; PYTHON has torch; DEVICE=rocm emulates AMD GPUs with waves of 64 and of 32 lanes
	$(call quoted,$(PYTHON)) tests/kernels/emulate.py --device $(call quoted,$(DEVICE)) $(ARGS)

emulate-gfx: $(GFX)  ## run the ROCm package's code for ARCH (gfx1100) in an emulator of its instructions; PYTHON has torch, Python >= 3.11; ARGS="-k rms_norm"
	$(BIN)/python tests/kernels/gfx/emulate_gfx.py --arch $(call quoted,$(ARCH)) --python $(call quoted,$(PYTHON)) $(ARGS)

gpu: gpu-tests gpu-sanitize bench-gpu  ## run everything that needs a GPU: gpu-tests, gpu-sanitize and bench-gpu

gpu-tests:  ## test the kernels on a GPU; PYTHON has torch for it and the kernels; ARGS="-k rms_norm"
	$(call quoted,$(PYTHON)) tests/kernels/on_gpu.py $(ARGS)

gpu-sanitize:  ## run small cases on a GPU under compute-sanitizer; PYTHON also has nvidia-cuda-sanitizer-api; ARGS="--tool=racecheck"
	$(call quoted,$(PYTHON)) tests/kernels/on_gpu.py --compute-sanitizer $(ARGS)

lint: $(DEV)  ## run ruff, mypy, clang-format, gersemi, shellcheck, taplo, yamllint, codespell and the prose check
	$(BIN)/pre-commit run --all-files

format: $(DEV)  ## format Python, C++ and CMake in place
	$(BIN)/ruff format . && git ls-files '*.cc' '*.cu' '*.h' | xargs $(BIN)/clang-format -i
	$(BIN)/pre-commit run gersemi --all-files

docs: $(DOCS)  ## build the documentation site in build/docs/html; warnings and broken links between pages are errors; Python >= 3.11
	$(CLEAN) $(BIN)/python -m sphinx -W --keep-going -q -b html -c docs -d build/docs/doctrees . build/docs/html

docs-links: $(DOCS)  ## check every link from the documentation to other servers
	$(CLEAN) $(BIN)/python -m sphinx -W --keep-going -q -b linkcheck -c docs -d build/docs/doctrees . build/docs/links

bench-build: $(DEV)  ## time builds: cold, warm, without a change, after one edited file
	$(BIN)/python benchmarks/bench_build.py

bench-reuse: $(DEV)  ## measure bytes, requests and seconds of reusing the kernels of a remote wheel; ARGS="--megabytes 20"
	$(BIN)/python benchmarks/bench_reuse.py $(ARGS)

bench-kernels: $(DEV)  ## compare the CPU kernels in output/ with the official wheel and torch; ARGS="--quick --only rms_norm"
	$(BIN)/python benchmarks/bench_kernels.py $(ARGS)

bench-check: $(DEV)  ## name the CPU kernels that are slower than in the baseline of this CPU; ARGS="--quick"
	$(BIN)/python benchmarks/bench_kernels.py --check --peers official eager $(ARGS)

bench-engine: $(DEV)  ## compare whole engines on the CPU: the packages in output/, the official wheel and transformers; ARGS="--quick"
	$(BIN)/python benchmarks/bench_engine.py $(ARGS)

bench-gpu: $(VENV)  ## compare the GPU kernels with the official wheel and torch; PYTHON has torch for CUDA and the kernels; ARGS="--quick"
	$(BIN)/python benchmarks/bench_gpu.py --python $(call quoted,$(PYTHON)) $(ARGS)

clean:  ## remove the results of builds from the tree
	rm -rf output build dist
