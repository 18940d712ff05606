#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the Python package alone; the kernels come as packages of their own.
set -euo pipefail
# Builds run as whoever they run as; the prefix is a new one.
export PIP_ROOT_USER_ACTION=ignore
# A constraint, a target or `user` in the machine's /etc/pip.conf is not meant for this prefix.
export PIP_CONFIG_FILE=/dev/null
export VLLM_TARGET_DEVICE=empty VLLM_SKIP_VERSION_SUFFIX=1
"$PYTHON" -m pip wheel . --verbose --no-deps --no-build-isolation --no-index --wheel-dir "$SRC_DIR/wheel"
# By name, not by path: pip would write the path of this folder into the package (direct_url.json).
"$PYTHON" -m pip install vllm --no-deps --no-index --find-links "$SRC_DIR/wheel" --ignore-installed
