#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the Python package alone; the kernels come as packages of their own.
set -euo pipefail
export VLLM_TARGET_DEVICE=empty VLLM_SKIP_VERSION_SUFFIX=1
"$PYTHON" -m pip install . -v --no-deps --no-build-isolation --no-index --ignore-installed
