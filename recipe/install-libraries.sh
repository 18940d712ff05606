#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copies the libraries of one output, and their build_info, from what its staging step compiled.
set -euo pipefail
(cd "$SRC_DIR/stage" && find vllm \( -name '*.so' -o -path 'vllm/_build_info/*.json' \) -print0) | while IFS= read -r -d '' file; do
  install -D "$SRC_DIR/stage/$file" "$SP_DIR/$file"
done
