#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Locks an environment with vllm to exact files, installs it from the lock alone, and runs an op there.
#   usage: examples/locked-environment/run.sh [OUTPUT_FOLDER [WORK_FOLDER]]     after: make package VARIANT=cpu
set -euo pipefail
output=$(realpath "${1:-output}")
work=${2:+$(realpath -m "$2")}
cd "$(dirname "$0")/../.."
work=${work:-$PWD/build/examples/locked-environment}
# The channel with vllm's dependencies is the one that the packages were built with.
toolchain=$(.venv/bin/vllm-build toolchain --json | .venv/bin/python -c 'import json, sys; print(json.load(sys.stdin)["url"])')

mkdir -p "$work"
.venv/bin/python examples/locked-environment/lock.py lock "$work/pixi.lock" "file://$output" "$toolchain" -- vllm
.venv/bin/python examples/locked-environment/lock.py install "$work/pixi.lock" "$work/env"
# -P: import the installed vllm, not the one in this folder.
"$work/env/bin/python" -P -c '
import torch
from vllm._kernels import ops

x = torch.randn(8, 2 * 64)
out = torch.empty(8, 64)
ops.silu_and_mul(out, x)
assert torch.allclose(out, torch.nn.functional.silu(x[:, :64]) * x[:, 64:], atol=1e-6)
print("silu_and_mul agrees with torch")
'
