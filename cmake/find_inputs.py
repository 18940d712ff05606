# SPDX-License-Identifier: Apache-2.0
"""Writes plan.json and prints CMake's other inputs as JSON, for a build without setup.py.

The variables of the build contract have the same effect as for setup.py: architectures, toolkit and
jobs.

Usage: find_inputs.py DEVICE PLAN_FILE
"""

from __future__ import annotations

import json
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from vllm_build.kernels import kernels_table, plan_resolver  # noqa: E402 - the source tree is put on the path first
from vllm_build.native import job_count  # noqa: E402 - the source tree is put on the path first
from vllm_build.settings.build_settings import Settings  # noqa: E402
from vllm_build.sources import plan_inputs  # noqa: E402 - the source tree is put on the path first
from vllm_build.target import device as devices  # noqa: E402
from vllm_build.target import torch_files  # noqa: E402 - the source tree is put on the path first
from vllm_build.util import environ  # noqa: E402 - the source tree is put on the path first
from vllm_build.util.errors import VllmBuildError  # noqa: E402


def main() -> int:
    """Write the plan and print the other inputs; the exit status is the same as for vllm-build."""
    device, plan_file = sys.argv[1], Path(sys.argv[2])
    try:
        settings = Settings.from_environ(environ.snapshot())
        target = devices.assume(device, settings)
        resolved = plan_resolver.for_settings(
            kernels_table.load(ROOT), device, target.release, settings
        )
        chosen = job_count.decide(
            settings.max_jobs,
            settings.nvcc_threads,
            device=device,
            toolkit_version=target.release,
            heavy_units=len(resolved.heavy_sources),
            heavy=resolved.heaviest_bytes,
        )
        torch = torch_files.find()
        inputs = plan_file.parent / "inputs"
        sources = plan_inputs.prepare(ROOT, settings, resolved, inputs)
    except VllmBuildError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    text = resolved.to_json()
    # Do not touch an unchanged plan: Ninja configures again if it is newer than the build files.
    if not plan_file.is_file() or plan_file.read_text(encoding="utf-8") != text:
        plan_file.write_text(text, encoding="utf-8")
    found = {
        "VLLM_PLAN": str(plan_file),
        "VLLM_TORCH_INCLUDE_DIRS": str(torch.include),
        "VLLM_TORCH_CPU_LIBRARY": str(torch.library),
        "VLLM_PYTHON_INCLUDE_DIR": sysconfig.get_path("include"),
        "VLLM_HEAVY_JOBS": str(chosen.heavy_jobs),
        **sources,
    }
    if device == "cuda" and target.toolkit is not None:
        found["CMAKE_CUDA_COMPILER"] = str(target.toolkit.compiler)
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
