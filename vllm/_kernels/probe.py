# SPDX-License-Identifier: Apache-2.0
"""Imports torch, loads the kernels and prints the outcome as JSON.

:mod:`vllm.collect_env` runs this in a separate process: a library for another processor or torch
can end the process that loads it, and the report must survive that.
"""

from __future__ import annotations

import json
import platform
import sys
from typing import Any


def _torch() -> dict[str, Any]:
    import torch  # noqa: PLC0415 - the probe tests this import

    return {
        "version": torch.__version__,
        "file": torch.__file__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "git": torch.version.git_version,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _kernels() -> dict[str, Any]:
    from vllm._kernels import loader  # noqa: PLC0415 - after the probe of torch

    loader.load()
    import torch  # noqa: PLC0415 - loaded by now

    spaces = {space for name in loader.loaded() for space in loader.LIBRARIES[name].namespaces}
    ops = sorted(
        name
        for name in torch._C._dispatch_get_all_op_names()  # noqa: SLF001 - no public list
        if name.partition("::")[0] in spaces
    )
    isa: dict[str, str] = {}
    if "_C::cpu_isa" in ops:
        try:
            isa["cpu_isa"] = loader.namespace("_C").cpu_isa()
        except RuntimeError as error:  # VLLM_CPU_ISA is malformed
            isa["cpu_isa"] = str(error).splitlines()[0]
    return {
        **isa,
        "loaded": {name: str(path) for name, path in sorted(loader.loaded().items())},
        "ops": ops,
    }


def probe() -> dict[str, Any]:
    """Versions and properties of torch and the kernels; a part that fails is ``{"error": …}``."""
    result: dict[str, Any] = {"python": platform.python_version()}
    for key, question in (("torch", _torch), ("kernels", _kernels)):
        try:
            result[key] = question()
        except Exception as error:  # noqa: BLE001 - every failure belongs in the report
            result[key] = {"error": f"{type(error).__name__}: {error}"}
    return result


def main() -> None:
    """Print the JSON document as the last line of standard output."""
    sys.stdout.write("\n" + json.dumps(probe()) + "\n")
