# SPDX-License-Identifier: Apache-2.0
"""What `vllm-build package` needs beside a compiler of its own making."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from vllm_build import paths
from vllm_build.conda import channel, variants
from vllm_build.doctor._fact import Fact, missing, of_error
from vllm_build.errors import VllmBuildError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.settings import Settings


def _channel(asked: Settings) -> Fact:
    try:
        name = channel.choose(None, asked)
    except VllmBuildError as error:
        return of_error("channel", error)
    if name == channel.LOCAL and not shutil.which("apt-get"):
        return missing("channel", "local, and there is no apt-get", "CHANNEL=conda-forge takes packages from there instead")
    return Fact("channel", name)


def _toolchain() -> Fact:
    folder = paths.toolchain_channel()
    packages = list(folder.glob("*/*.conda"))
    if not packages:
        return missing("toolchain channel", f"none in {folder}", "vllm-build toolchain (make package does it)")
    return Fact("toolchain channel", f"{len(packages)} packages in {folder}")


def examine(root: Path, asked: Settings) -> list[Fact]:
    """The channel, its packages, the variants."""
    chosen = _channel(asked)
    return [
        Fact("rattler-build", shutil.which("rattler-build") or "the Python bindings"),
        chosen,
        *([_toolchain()] if chosen.found == channel.LOCAL else []),
        Fact("variants", ", ".join(variants.names(root))),
    ]
