# SPDX-License-Identifier: Apache-2.0
"""Finds Highway, the library of vector instructions that the CPU kernels include."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.native import cmake
from vllm_build.sources import stable_inputs, third_party

if TYPE_CHECKING:
    from vllm_build.native.build_configuration import Configuration


def _prefixes(config: Configuration) -> list[Path]:
    """Prefixes that the user has named, in search order."""
    given = cmake.definition(config.settings.cmake_args, "CMAKE_PREFIX_PATH") or ""
    listed = [
        *given.split(";"),
        *config.settings.inherited.get("CMAKE_PREFIX_PATH", "").split(os.pathsep),
    ]
    conda = [config.settings.host_prefix, config.settings.conda_prefix, Path(sys.prefix)]
    return [*(Path(entry) for entry in listed if entry), *(prefix for prefix in conda if prefix)]


def find(config: Configuration) -> dict[str, str]:
    """Find Highway without writing anything.

    Returns CMake variables: none if CMake shall search, or if the plan does not need Highway.

    The order is: ``HIGHWAY_SRC_DIR``; ``CMAKE_ARGS`` or the environment; an installation in a
    prefix that the user named; the locked sources from ``vllm-build fetch``. CMake searches the
    system last.

    Raises:
        IntegrityError: the locked sources were changed.
    """
    if "hwy" not in config.plan.libraries:
        return {}
    settings = config.settings
    if settings.highway_source:
        return {"HIGHWAY_SRC_DIR": str(settings.highway_source)}
    named = ("hwy_DIR", "hwy_ROOT", "HIGHWAY_SRC_DIR")
    if any(cmake.definition(settings.cmake_args, name) for name in named) or any(
        settings.inherited.get(name) for name in named[:2]
    ):
        return {}
    for prefix in _prefixes(config):
        for folder in ("lib", "lib64", f"lib/{sysconfig.get_config_var('MULTIARCH') or ''}"):
            if (prefix / folder / "cmake" / "hwy" / "hwy-config.cmake").is_file():
                return {"hwy_DIR": str(prefix / folder / "cmake" / "hwy")}
    if cached := third_party.read(config.root)["highway"].cached():
        return {"HIGHWAY_SRC_DIR": str(cached)}
    return {}


def link(config: Configuration, inputs: Path) -> dict[str, str]:
    """The same as :func:`find`, with a link in the build folder to the locked sources.

    Without the link, binaries would contain the path of the cache (``__FILE__``).
    """
    found = find(config)
    if "HIGHWAY_SRC_DIR" in found and not config.settings.highway_source:
        return {
            "HIGHWAY_SRC_DIR": str(
                stable_inputs.link(inputs / "highway", Path(found["HIGHWAY_SRC_DIR"]))
            )
        }
    return found
