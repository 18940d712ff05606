# SPDX-License-Identifier: Apache-2.0
"""Facts about what ``vllm-build package`` needs: the channel, its packages and the variants."""

from __future__ import annotations

import platform
import shutil
from typing import TYPE_CHECKING

from packaging.version import Version

from vllm_build.conda import package_channel, variants
from vllm_build.doctor.fact import Fact, missing, of_error
from vllm_build.settings import build_settings
from vllm_build.toolchain import channel_views
from vllm_build.util.errors import VllmBuildError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vllm_build.settings.build_settings import Settings

#: The oldest glibc that the compilers and interpreters of the local channel run with. They are
#: programs of Debian 12.
GLIBC = Version("2.36")
_OTHER_SYSTEM = (
    "build on a system with a newer glibc (Debian 12, Ubuntu 24.04), or set CHANNEL=conda-forge"
)


def _channel(environ: Mapping[str, str], asked: Settings) -> Fact:
    for error in build_settings.problems({"CHANNEL": environ.get("CHANNEL", "")}):
        return of_error("channel", error)
    name = package_channel.choose(None, asked)
    if name == package_channel.LOCAL and not shutil.which("apt-get"):
        return missing(
            "channel",
            "local, but there is no apt-get",
            "set CHANNEL=conda-forge to use the packages of conda-forge instead",
        )
    return Fact("channel", name)


def _glibc() -> Fact:
    name, release = platform.libc_ver()
    if name != "glibc":
        return missing(
            "glibc",
            f"another C library, but the local channel needs glibc {GLIBC}",
            _OTHER_SYSTEM,
        )
    if Version(release) < GLIBC:
        return missing(
            "glibc",
            f"{release}, but the compilers of the local channel need {GLIBC} or newer",
            _OTHER_SYSTEM,
        )
    return Fact("glibc", release)


def _toolchain(root: Path) -> Fact:
    try:
        folder = channel_views.view_of(root)
    except VllmBuildError as error:
        return of_error("toolchain channel", error)
    packages = list(folder.glob("*/*.conda"))
    if not packages:
        return missing(
            "toolchain channel",
            f"none in {folder}",
            "run vllm-build toolchain (make package does that, too)",
        )
    return Fact("toolchain channel", f"{len(packages)} packages in {folder}")


def examine(root: Path, environ: Mapping[str, str], asked: Settings) -> list[Fact]:
    """Facts about the channel, its packages and the variants."""
    chosen = _channel(environ, asked)
    return [
        Fact("rattler-build", shutil.which("rattler-build") or "the Python bindings"),
        chosen,
        *([_glibc(), _toolchain(root)] if chosen.found == package_channel.LOCAL else []),
        Fact("variants", ", ".join(variants.names(root))),
    ]
