#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copies the component that the package is named after, vllm-kernels or vllm-flashmla, from what staging compiled: its record, and the libraries
# that the record names.
set -euo pipefail
record="$SRC_DIR/stage/vllm/_build_info/$PKG_NAME.json"
mkdir -p "$SP_DIR/vllm/_build_info"
for library in "$SRC_DIR"/stage/vllm/*.so; do
  if grep -qF "\"vllm/${library##*/}\"" "$record"; then cp "$library" "$SP_DIR/vllm/"; fi
done
cp "$record" "$SP_DIR/vllm/_build_info/"
