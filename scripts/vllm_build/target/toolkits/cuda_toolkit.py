# SPDX-License-Identifier: Apache-2.0
"""Finds CUDA: a runfile's or distribution's installation, conda's packages, NVIDIA's wheels."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.architectures.gpu_targets import FLOORS
from vllm_build.target.toolkits import toolkit_search
from vllm_build.target.toolkits.toolkit_search import Toolkit
from vllm_build.util.processes import children

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_build.settings.build_settings import Settings

#: Folders with the headers and libraries of one platform, in a conda prefix and in NVIDIA's
#: installations.
TARGETS = ("targets/x86_64-linux", "targets/sbsa-linux")
#: The place where NVIDIA's installers put it. It is only a hint for the message if no toolkit is
#: found: a toolkit that is not on PATH was not chosen by the user.
USUAL = Path("/usr/local/cuda")
_RELEASE = r"release ([0-9]+\.[0-9]+)"
_MARKER = Path("include", "cuda_runtime.h")
_VARIABLE = "CUDA_HOME"


def _with_headers(folder: Path) -> Path | None:
    for root in (folder, *(folder / target for target in TARGETS)):
        if (root / _MARKER).is_file():
            return root
    return None


def _own_root(nvcc: Path) -> Path | None:
    """The toolkit's folder as nvcc reports it, the only way that works for a wrapper script.

    ``--dryrun`` runs nothing.
    """
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = children.run(
            [nvcc, "--dryrun", "-x", "cu", os.devnull], timeout=toolkit_search.TIMEOUT
        )
        if match := re.search(r"^#\$ TOP=(.+)$", done.stderr, re.MULTILINE):
            return Path(os.path.normpath(match[1].strip()))
    return None


def _root(nvcc: Path, settings: Settings) -> Path:
    """The folder with CUDA's headers for ``nvcc``, else the folder above its ``bin``."""
    above = nvcc.parent.parent
    # nvcc may be a link into the toolkit or a link to a compiler cache, so check both folders.
    for folder in (above, nvcc.resolve().parent.parent):
        if found := _with_headers(folder):
            return found
    if (told := _own_root(nvcc)) and (found := _with_headers(told)):
        return found
    # In a conda build nvcc is in the build environment and the headers are in the host environment.
    prefixes = [path for _, path in toolkit_search.conda_prefixes(settings)]
    if above in prefixes:
        for prefix in prefixes:
            if found := _with_headers(prefix):
                return found
    return above


def _conda(settings: Settings) -> Iterator[tuple[str, Path]]:
    for name, prefix in toolkit_search.conda_prefixes(settings):
        if any((prefix / target).is_dir() for target in TARGETS):
            yield name, prefix
            yield from ((name, prefix / target) for target in TARGETS)


def _wheels() -> Iterator[tuple[str, Path]]:
    for site in toolkit_search.site_folders():
        whole = sorted(
            (site / "nvidia").glob("cu[0-9]*"),
            key=lambda path: (len(path.name), path.name),
            reverse=True,
        )
        for folder in (*whole, site / "nvidia" / "cuda_nvcc"):
            yield "NVIDIA's wheels", folder


def find_cuda(settings: Settings) -> Toolkit | None:
    """Find CUDA; None if no place has nvcc.

    The places are, in this order: ``CUDA_HOME``, ``CUDA_PATH``, ``PATH``, a conda environment,
    NVIDIA's wheels.

    Raises:
        ToolchainError: nvcc does not work, is older than 11.8, or is not where a variable says.
    """
    named = [("CUDA_HOME", settings.cuda_home), ("CUDA_PATH", settings.cuda_path)]
    candidate = (
        # `../../bin`: CUDA_HOME may name the `targets/x86_64-linux` of a conda prefix.
        toolkit_search.named(named, ["bin/nvcc", "../../bin/nvcc"], "a CUDA toolkit")
        or toolkit_search.on_path("nvcc", settings)
        or toolkit_search.in_folders(_conda(settings), "bin/nvcc")
        or toolkit_search.in_folders(_wheels(), "bin/nvcc")
    )
    if candidate is None:
        return None
    version = toolkit_search.ask(candidate.compiler, _RELEASE, _VARIABLE)
    toolkit = Toolkit(
        "cuda", version, _root(candidate.compiler, settings), candidate.compiler, candidate.reason
    )
    return toolkit_search.at_least(toolkit, FLOORS["cuda"], _VARIABLE)
