# SPDX-License-Identifier: Apache-2.0
"""Finds the oneAPI DPC++ compiler, which compiles SYCL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from vllm_build.target.toolkits import toolkit_search
from vllm_build.target.toolkits.toolkit_search import Toolkit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_build.settings.build_settings import Settings

#: The place where Intel's installers put it.
USUAL = Path("/opt/intel/oneapi")
_VARIABLE = "CMPLR_ROOT"


def _release(folder: Path) -> Version:
    try:
        return Version(folder.name)
    except InvalidVersion:  # `latest`, a link
        return Version("0")


def _installed(settings: Settings) -> Iterator[tuple[str, Path]]:
    for reason, root in (("ONEAPI_ROOT", settings.oneapi_root), ("the usual place", USUAL)):
        if root is not None:
            for folder in sorted((root / "compiler").glob("*"), key=_release, reverse=True):
                yield reason, folder


def find_sycl(settings: Settings) -> Toolkit | None:
    """Find the compiler; None if no place has icpx.

    The places are, in this order: ``CMPLR_ROOT``, ``PATH``, a conda environment, ``ONEAPI_ROOT``,
    ``/opt/intel/oneapi``.

    Raises:
        ToolchainError: icpx does not work, or is not where ``CMPLR_ROOT`` says.
    """
    candidate = (
        toolkit_search.named([(_VARIABLE, settings.sycl_home)], ["bin/icpx"], "a oneAPI compiler")
        or toolkit_search.on_path("icpx", settings)
        or toolkit_search.in_folders(toolkit_search.conda_prefixes(settings), "bin/icpx")
        or toolkit_search.in_folders(_installed(settings), "bin/icpx")
    )
    if candidate is None:
        return None
    version = toolkit_search.ask(
        candidate.compiler, r"Compiler ([0-9]+\.[0-9]+(?:\.[0-9]+)?)", _VARIABLE
    )
    return Toolkit(
        "sycl", version, candidate.compiler.parent.parent, candidate.compiler, candidate.reason
    )
