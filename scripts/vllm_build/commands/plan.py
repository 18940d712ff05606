# SPDX-License-Identifier: Apache-2.0
"""``vllm-build plan``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vllm_build import device, kernels_table, paths, plan
from vllm_build.settings import Settings

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.console import Console

NAME = "plan"
HELP = "Show which kernels are built, for what, and which are not and why."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--device", help="default: VLLM_TARGET_DEVICE, else the one that is found")


def run(arguments: Namespace, console: Console) -> int:
    """Show the kernel plan of a device."""
    chosen = arguments.device or device.target_device(Settings.from_environ())
    resolved = plan.resolve(kernels_table.load(paths.source_root()), chosen)
    if console.json_mode:
        console.json(json.loads(resolved.to_json()))
    rows = [[e.name, e.component, k.name, "\n".join(map(str, k.sources))] for e in resolved.extensions for k in e.kernels]
    console.table(f"kernels for {chosen}", ["extension", "package", "kernel", "sources"], rows)
    return 0
