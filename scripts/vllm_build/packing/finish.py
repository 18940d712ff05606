# SPDX-License-Identifier: Apache-2.0
"""Prepares built packages for a channel, both vllm's packages and the toolchain's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.packing import build_paths, normalise

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def finish(packages: Iterable[Path], *folders: Path, level: int = normalise.LEVEL) -> None:
    """Normalise ``packages``, then check that they contain no path of this machine.

    Args:
        packages: newly built ``.conda`` files, which are rewritten in place.
        folders: the folders that they were built in and from. The cache, the checkout and the
            user's home are always checked.
        level: the compression level of zstd.

    Raises:
        IntegrityError: a file is not a package.
        BuildError: a package contains the path of one of the folders.
    """
    forbidden = build_paths.roots(*folders)
    for package in packages:
        normalise.normalise(package, level)
        build_paths.check(package, forbidden)
