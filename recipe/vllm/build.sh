#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the engine with our Python package in it, without kernels, which other packages contain.
# The engine's sources come from the cache, where `vllm-build fetch vllm` puts them.
set -euo pipefail
# rattler-build sets this to the time of the build, which no package may contain.
export SOURCE_DATE_EPOCH=315532800
# The prefix is new, so pip's warning about running as root does not apply.
export PIP_ROOT_USER_ACTION=ignore
# The machine's /etc/pip.conf may set constraints, a target or `user`, none of which apply to this prefix.
export PIP_CONFIG_FILE=/dev/null
export VLLM_TARGET_DEVICE=empty VLLM_SKIP_VERSION_SUFFIX=1 VLLM_ENGINE=1
"$PYTHON" -m pip wheel . --verbose --no-deps --no-build-isolation --no-index --wheel-dir "$SRC_DIR/wheel"
# By name, because for a path pip would record this folder in the package (direct_url.json). The
# package is compiled when it is installed, for the interpreter that is there.
"$PYTHON" -m pip install vllm --no-deps --no-index --no-compile --find-links "$SRC_DIR/wheel" --ignore-installed
# The script contains the prefix of this build, and an installer writes its own, so the record keeps
# the name without the hash.
record=("$SP_DIR"/vllm-*.dist-info/RECORD)
sed -i 's|^\(\.\./\.\./\.\./bin/vllm\),sha256=.*|\1,,|' "${record[0]}"
grep -qx '../../../bin/vllm,,' "${record[0]}"
