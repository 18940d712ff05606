# SPDX-License-Identifier: Apache-2.0
# A table of contents: every target is one line into vllm-build or pytest. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help package package-plain-pypi test test-fast test-toolkits same-bytes test-signals toolchain toolchain-update fetch render stamp doctor lint format bench-build docs docs-links clean sanitize emulate gpu gpu-tests gpu-sanitize bench-kernels bench-gpu bench-reuse

# An empty environment (env -i, cron) has no PATH; shells fall back to a default then, make does not.
export PATH := $(or $(PATH),/usr/local/bin:/usr/bin:/bin)
PYTHON ?= python3
VARIANT ?= cpu
BIN := .venv/bin
VENV := $(BIN)/.installed
DEV := $(BIN)/.installed-dev
DOCS := $(BIN)/.installed-docs
# One word for the shell, whatever characters it has. ARGS alone is words.
quoted = '$(subst ','\'',$(1))'
# The caller's modules and interpreter are none of ours; vllm-build sees to itself (scripts/bin/vllm-build).
CLEAN := env -u PYTHONPATH -u PYTHONHOME
# pip with the machine's way to an index and nothing else of its configuration: constraints, `user` or `target` are not meant for .venv.
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

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' Makefile
	@echo 'PYTHON=python3 is the interpreter: one name or path, which may hold spaces, without arguments (not "uv run python")'

package: $(VENV)  ## build, test, install and run the conda packages of VARIANT (cpu)
	$(BIN)/vllm-build package $(call quoted,$(VARIANT))

package-plain-pypi: $(DEV)  ## the CPU packages from nothing with PyPI alone, in a temporary folder: 1 GB of downloads, an hour on two cores
	VLLM_TEST_PLAIN_PYPI=1 $(CLEAN) $(BIN)/python -m pytest -s tests/recipe/test_plain_pypi.py

test: $(DEV)  ## all tests, with a real build of the CPU packages and the coverage of the build library
	$(CLEAN) $(BIN)/python -m pytest --cov

test-fast: $(DEV)  ## the tests that build nothing
	$(CLEAN) $(BIN)/python -m pytest -m "not slow"

test-toolkits: $(DEV)  ## the CUDA toolkits of the channel, every release: 100 MB and two minutes each
	VLLM_TEST_TOOLKITS=all $(CLEAN) $(BIN)/python -m pytest tests/recipe/test_cuda_toolchain.py

same-bytes: $(DEV)  ## build all CPU packages and their toolchain twice, from nothing, and compare: 20 minutes and more
	VLLM_TEST_SAME_BYTES=all $(CLEAN) $(BIN)/python -m pytest tests/recipe/test_same_bytes.py

test-signals: $(DEV)  ## every signal to every command, at random moments and while programs run: about five minutes
	VLLM_TEST_SIGNALS=all $(CLEAN) $(BIN)/python -m pytest tests/build/test_command_signals.py

toolchain: $(VENV)  ## build the local toolchain channel, only what changed
	$(BIN)/vllm-build toolchain

toolchain-update: $(VENV)  ## lock the versions that the mirrors have now
	$(BIN)/vllm-build toolchain --update

fetch: $(VENV)  ## the locked third-party sources, where builds with pip find them
	$(BIN)/vllm-build fetch

render: $(VENV)  ## show the packages of every variant
	$(BIN)/vllm-build render

stamp: $(VENV)  ## write the digests of the tree into recipe/variants.yaml
	$(BIN)/vllm-build stamp

doctor: $(VENV)  ## show what this machine has for a build
	$(BIN)/vllm-build doctor

sanitize:  ## the kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer, in PYTHON's environment, which has torch
	$(call quoted,$(PYTHON)) tests/kernels/sanitize.py

emulate:  ## the GPU kernels' tests without a GPU, in PYTHON's environment, which has torch
	$(call quoted,$(PYTHON)) tests/kernels/emulate.py $(ARGS)

gpu: gpu-tests gpu-sanitize bench-gpu  ## everything that needs a GPU, in PYTHON's environment: gpu-tests, gpu-sanitize, bench-gpu

gpu-tests:  ## the kernels' tests on a GPU, in PYTHON's environment, which has torch for it and the kernels; ARGS="-k rms_norm"
	$(call quoted,$(PYTHON)) tests/kernels/on_gpu.py $(ARGS)

gpu-sanitize:  ## their small cases under NVIDIA's compute-sanitizer, in the same environment, which has nvidia-cuda-sanitizer-api; ARGS="--tool=racecheck"
	$(call quoted,$(PYTHON)) tests/kernels/on_gpu.py --compute-sanitizer $(ARGS)

lint: $(DEV)  ## ruff, mypy, clang-format, gersemi, shellcheck, taplo, yamllint, codespell and banned phrases
	$(BIN)/pre-commit run --all-files

format: $(DEV)  ## format Python, C++ and CMake in place
	$(BIN)/ruff format . && git ls-files '*.cc' '*.cu' '*.h' | xargs $(BIN)/clang-format -i
	$(BIN)/pre-commit run gersemi --all-files

docs: $(DOCS)  ## the documentation site in build/docs/html; warnings and broken links between pages are errors; Python >= 3.11
	$(CLEAN) $(BIN)/python -m sphinx -W --keep-going -q -b html -c docs -d build/docs/doctrees . build/docs/html

docs-links: $(DOCS)  ## look up every link of the documentation to other servers
	$(CLEAN) $(BIN)/python -m sphinx -W --keep-going -q -b linkcheck -c docs -d build/docs/doctrees . build/docs/links

bench-build: $(DEV)  ## cold, warm, no-op and one-file-edit times of a build
	$(BIN)/python benchmarks/bench_build.py

bench-reuse: $(DEV)  ## bytes, requests and seconds of reusing the kernels of a remote wheel; ARGS="--megabytes 20"
	$(BIN)/python benchmarks/bench_reuse.py $(ARGS)

bench-kernels: $(DEV)  ## kernels against the official wheel and torch, with the packages in output/; ARGS="--quick --only rms_norm"
	$(BIN)/python benchmarks/bench_kernels.py $(ARGS)

bench-gpu: $(VENV)  ## GPU kernels against the official wheel and torch, in PYTHON's environment, which has torch for CUDA and the kernels; ARGS="--quick"
	$(BIN)/python benchmarks/bench_gpu.py --python $(call quoted,$(PYTHON)) $(ARGS)

clean:  ## remove what builds left in the tree
	rm -rf output build dist
