#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the CPU packages with the network switched off.
#   usage: examples/offline-build/run.sh [OUTPUT_FOLDER]
set -euo pipefail
output=$(realpath -m "${1:-output}")
cd "$(dirname "$0")/../.."

# With a network: put the build's tools into .venv, and the toolchain channel and third-party sources into the user's cache.
make toolchain fetch

# Without a network: build in a namespace that has no network interface. Everything comes from the cache.
unshare --map-root-user --net .venv/bin/vllm-build package cpu --output "$output"
