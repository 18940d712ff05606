# SPDX-License-Identifier: Apache-2.0
"""What this machine has for a build, and what it lacks."""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vllm_build import jobs, kernels_table, paths, plan
from vllm_build.conda import channel, variants

if TYPE_CHECKING:
    from pathlib import Path

#: A first build of the toolchain channel and of one variant: downloads, channel, extracted packages, work folders.
NEEDED_BYTES = 12 * jobs.GIB


@dataclass(frozen=True)
class Fact:
    """One thing that was looked at; ``remedy`` says what to do where something is missing."""

    what: str
    found: str
    remedy: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fact for ``--json``."""
        return asdict(self)


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _disk(what: str, folder: Path) -> Fact:
    free = _free(folder)
    short = free < NEEDED_BYTES
    remedy = (
        f"a first build takes about {NEEDED_BYTES // jobs.GIB} GiB; VLLM_BUILD_CACHE chooses another place for the cache" if short else None
    )
    return Fact(what, f"{folder}, {free / jobs.GIB:.1f} GiB free", remedy)


def examine(root: Path) -> list[Fact]:
    """Look at the interpreter, the programs, the folders, CPUs and memory; nothing is changed."""
    chosen = jobs.decide(None, unit_bytes=plan.resolve(kernels_table.load(root), "cpu").unit_bytes)
    program = shutil.which("rattler-build")
    apt = shutil.which("apt-get")
    packages = sorted(paths.toolchain_channel().glob("*/*.conda"))
    ccache = shutil.which("ccache") or shutil.which("sccache")
    return [
        Fact("python", f"{sys.version.split()[0]} at {sys.executable}"),
        Fact("rattler-build", program or "the Python bindings"),
        Fact("channel", channel.choose(None), None if apt else "no apt-get: packages come from conda-forge, which must be reachable"),
        Fact(
            "toolchain channel",
            f"{len(packages)} packages in {paths.toolchain_channel()}",
            None if packages else "vllm-build toolchain (make package does it)",
        ),
        Fact("variants", ", ".join(variants.names(root))),
        _disk("cache", paths.cache_root()),
        _disk("output", root / "output"),
        Fact("jobs", f"{chosen.count} ({'; '.join(chosen.why)})"),
        Fact("compiler cache", f"{paths.ccache_dir()} for packages; on PATH: {ccache or 'none'}"),
    ]
