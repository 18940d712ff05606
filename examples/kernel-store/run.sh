#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Publishes the kernels of a package to a signed store, then builds a wheel from that store without a compiler.
#   usage: examples/kernel-store/run.sh [OUTPUT_FOLDER [WORK_FOLDER]]     after: make package VARIANT=cpu
set -euo pipefail
output=$(realpath "${1:-output}")
work=${2:+$(realpath -m "$2")}
cd "$(dirname "$0")/../.."
work=${work:-$PWD/build/examples/kernel-store}
mkdir -p "$work"

# The signer keeps the private key; readers get the public one, not through the store.
openssl genpkey -algorithm ed25519 -out "$work/private.pem"
openssl pkey -in "$work/private.pem" -pubout -out "$work/public.pem"

.venv/bin/vllm-build publish --store "$work/store" --key "$work/private.pem" "$output"/linux-64/vllm-kernels-*-cpu_*.conda
.venv/bin/vllm-build store check "$work/store" --key "$work/public.pem"

# On another machine, which has only the store and the public key. The libraries must match these sources exactly.
export VLLM_TARGET_DEVICE=cpu VLLM_USE_PRECOMPILED=1 VLLM_PRECOMPILED_STORES="$work/store" VLLM_PRECOMPILED_KEY="$work/public.pem"
.venv/bin/vllm-build reuse
CC=false CXX=false .venv/bin/pip wheel . --no-deps --no-build-isolation --wheel-dir "$work/dist"
ls "$work/dist"
