# SPDX-License-Identifier: Apache-2.0
"""Finds ROCm: AMD's packages below ``/opt``, conda's or a distribution's packages, or wheels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version

from vllm_build.architectures.gpu_targets import FLOORS
from vllm_build.target.toolkits import toolkit_search
from vllm_build.target.toolkits.toolkit_search import Toolkit

if TYPE_CHECKING:
    from vllm_build.settings.build_settings import Settings

#: The place where AMD's packages put it on every distribution. Its programs are rarely on PATH.
USUAL = Path("/opt/rocm")
_VARIABLE = "ROCM_HOME"


def _recorded(root: Path) -> Version | None:
    """The release in ``.info/version``, such as ``6.4.1-83``.

    hipcc's version lags behind it, and some builds of hipcc print none.
    """
    for name in ("version", "version-rocm"):
        try:
            text = (root / ".info" / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if match := re.match(r"\s*([0-9]+\.[0-9]+(\.[0-9]+)?)", text):
            return Version(match[1])
    return None


def find_rocm(settings: Settings) -> Toolkit | None:
    """Find ROCm; None if no place has hipcc.

    The places are, in this order: ``ROCM_HOME``, ``ROCM_PATH``, ``PATH``, a conda environment, its
    wheels, ``/opt/rocm``.

    Raises:
        ToolchainError: neither ``.info/version`` nor hipcc has a version, ROCm is older than 5.7,
            or it is not where a variable says.
    """
    candidate = (
        toolkit_search.named(
            [("ROCM_HOME", settings.rocm_home), ("ROCM_PATH", settings.rocm_path)],
            ["bin/hipcc"],
            "a ROCm installation",
        )
        or toolkit_search.on_path("hipcc", settings)
        or toolkit_search.in_folders(toolkit_search.conda_prefixes(settings), "bin/hipcc")
        or toolkit_search.in_folders(
            [("ROCm's wheels", site / "_rocm_sdk_devel") for site in toolkit_search.site_folders()],
            "bin/hipcc",
        )
        or toolkit_search.in_folders([("the usual place", USUAL)], "bin/hipcc")
    )
    if candidate is None:
        return None
    folders = [candidate.compiler.parent.parent, candidate.compiler.resolve().parent.parent]
    recorded = [(folder, version) for folder in folders if (version := _recorded(folder))]
    root, version = (
        recorded[0]
        if recorded
        else (
            folders[0],
            toolkit_search.ask(
                candidate.compiler, r"HIP version: ([0-9]+\.[0-9]+(?:\.[0-9]+)?)", _VARIABLE
            ),
        )
    )
    return toolkit_search.at_least(
        Toolkit("rocm", version, root, candidate.compiler, candidate.reason),
        FLOORS["rocm"],
        _VARIABLE,
    )
