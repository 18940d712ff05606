# SPDX-License-Identifier: Apache-2.0
"""What happens to every package between its build and a channel, whether it is ours or the toolchain's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.packing import build_paths, normalise

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def finish(packages: Iterable[Path], *folders: Path, level: int = normalise.LEVEL) -> None:
    """Give each of ``packages`` the bytes of its content, then check that it names no folder of this machine.

    Args:
        packages: fresh ``.conda`` files, rewritten in place.
        folders: where they were built and what they were built from; the cache, the checkout and
            the user's home count anyway.
        level: how hard zstd tries.

    Raises:
        IntegrityError: a file is no package.
        BuildError: a package names one of the folders.
    """
    forbidden = build_paths.roots(*folders)
    for package in packages:
        normalise.normalise(package, level)
        build_paths.check(package, forbidden)
