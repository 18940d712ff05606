#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copies the component vllm-kernels from what staging compiled.
set -euo pipefail
mkdir -p "$SP_DIR/vllm/_build_info"
cp "$SRC_DIR"/stage/vllm/*.so "$SP_DIR/vllm/"
cp "$SRC_DIR/stage/vllm/_build_info/vllm-kernels.json" "$SP_DIR/vllm/_build_info/"
