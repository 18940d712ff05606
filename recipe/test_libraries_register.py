# SPDX-License-Identifier: Apache-2.0
"""Loads the libraries of one package into torch and checks that each registers operators.

The Python package is not needed.

Usage: test_libraries_register.py <package>
"""

from __future__ import annotations

import json
import sys
import sysconfig
from pathlib import Path

import torch


def operators() -> set[str]:
    """All operators that are registered in torch, with their overloads."""
    return set(torch._C._dispatch_get_all_op_names())  # noqa: SLF001 - there is no public list


def main(package: str) -> int:
    """Load every library in the package's record and return the exit status."""
    site = Path(sysconfig.get_path("purelib"))
    info = json.loads(
        (site / "vllm" / "_build_info" / f"{package}.json").read_text(encoding="utf-8")
    )
    good = bool(info["extensions"])
    for extension in info["extensions"]:
        before = operators()
        torch.ops.load_library(str(site / extension["file"]))
        found = sorted(operators() - before)
        lacking = [
            name
            for name in found
            if not torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA")  # noqa: SLF001 - as above
        ]
        good &= bool(found) and not lacking
        print(
            f"  {extension['name']}: {', '.join(found) or 'registers NOTHING'}"
            + (f"; NOT for CUDA: {lacking}" if lacking else "")
        )
    print(
        f"Python {sys.version.split()[0]}, torch {torch.__version__}, {package} "
        f"{info['kernel_digest'][:12]}, device {info['device']}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
