# SPDX-License-Identifier: Apache-2.0
"""Loads the libraries of one package into torch and compares their operators with its record.

Operators under the key `none` are defined and have no implementation in this build.

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


def implemented(name: str, key: str) -> bool:
    """Whether an operator has an implementation for a dispatch key."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(name, key))  # noqa: SLF001 - as above


def main(package: str) -> int:
    """Load every library in the package's record and return the exit status."""
    site = Path(sysconfig.get_path("purelib"))
    info = json.loads(
        (site / "vllm" / "_build_info" / f"{package}.json").read_text(encoding="utf-8")
    )
    before = operators()
    for extension in info["extensions"]:
        torch.ops.load_library(str(site / extension["file"]))
        print(f"  {extension['name']}: loaded")
    found = operators() - before
    listed = {name for names in info["ops"].values() for name in names}
    wrong = [f"{name} is not registered" for name in sorted(listed - found)]
    wrong += [f"{name} is registered but not in the record" for name in sorted(found - listed)]
    wrong += [
        f"{name} has no implementation for {key}"
        for key, names in info["ops"].items()
        for name in names
        if key != "none" and name in found and not implemented(name, key)
    ]
    for line in wrong:
        print(f"  WRONG: {line}")
    print(
        f"Python {sys.version.split()[0]}, torch {torch.__version__}, {package} "
        f"{info['kernel_digest'][:12]}, device {info['device']}: {len(found)} operators"
    )
    return 1 if wrong or not found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
