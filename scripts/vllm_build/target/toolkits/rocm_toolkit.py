# SPDX-License-Identifier: Apache-2.0
"""Finds ROCm: AMD's packages below ``/opt``, conda's, the wheels of its SDK, a distribution's.

A ROCm that compiles HIP is a folder with a record of its release and a clang. hipcc, which only
wraps that clang, is not in all of them: conda environments have clang alone.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version

from vllm_build.architectures.gpu_targets import FLOORS
from vllm_build.target.toolkits import toolkit_search
from vllm_build.target.toolkits.toolkit_search import Candidate, Toolkit
from vllm_build.util.errors import ToolchainError

if TYPE_CHECKING:
    from vllm_build.settings.build_settings import Settings

#: The place where AMD's packages put it on every distribution. Its programs are rarely on PATH.
USUAL = Path("/opt/rocm")
_VARIABLE = "ROCM_HOME"
_RELEASE = re.compile(r"\s*([0-9]+\.[0-9]+(\.[0-9]+)?)")
#: clang in a ROCm folder: AMD's name for it, and its places in ROCm 5.7 to 7.2 and in conda.
_CLANGS = (
    "bin/amdclang++",
    "lib/llvm/bin/clang++",
    "llvm/bin/clang++",
    "bin/x86_64-conda-linux-gnu-clang++",
    "bin/clang++",
)
#: Programs that tell a ROCm folder, the usual one first.
_PROGRAMS = ("bin/hipcc", *_CLANGS[:3])


def _read_release(root: Path) -> Version | None:
    """The release in ``.info/version``, such as ``6.4.1-83``.

    The number that hipcc prints is HIP's own, and some builds of hipcc print none.
    """
    for name in ("version", "version-rocm"):
        try:
            text = (root / ".info" / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if match := _RELEASE.match(text):
            return Version(match[1])
    return None


def _in_conda(settings: Settings) -> Candidate | None:
    """Hipcc of a conda environment, or the clang of one that has HIP's headers."""
    prefixes = toolkit_search.conda_prefixes(settings)
    found = toolkit_search.in_folders(prefixes, "bin/hipcc")
    with_hip = [
        (reason, prefix) for reason, prefix in prefixes if (prefix / "share/hip/version").is_file()
    ]
    return found or toolkit_search.in_folders(with_hip, "bin/x86_64-conda-linux-gnu-clang++")


def find_rocm(settings: Settings) -> Toolkit | None:
    """Find ROCm; None if no place has a compiler for HIP.

    The places are, in this order: ``ROCM_HOME``, ``ROCM_PATH``, ``PATH``, a conda environment, its
    wheels, ``/opt/rocm``.

    Raises:
        ToolchainError: neither ``.info/version`` nor hipcc names a release, ROCm is older than 5.7
            or not where a variable says, or the hipcc is the one for NVIDIA GPUs.
    """
    candidate = (
        toolkit_search.named(
            [("ROCM_HOME", settings.rocm_home), ("ROCM_PATH", settings.rocm_path)],
            [*_PROGRAMS, *_CLANGS[3:]],
            "a ROCm installation",
        )
        or toolkit_search.on_path("hipcc", settings)
        or _in_conda(settings)
        or toolkit_search.in_folders(
            [("ROCm's wheels", site / "_rocm_sdk_devel") for site in toolkit_search.site_folders()],
            "bin/hipcc",
        )
        or next(
            filter(
                None,
                (
                    toolkit_search.in_folders([("the usual place", USUAL)], program)
                    for program in _PROGRAMS
                ),
            ),
            None,
        )
    )
    if candidate is None:
        return None
    roots = _possible_roots(candidate.compiler)
    recorded = [(root, version) for root in roots if (version := _read_release(root))]
    if recorded:
        root, version = recorded[0]
    elif candidate.compiler.name == "hipcc":
        root, version = roots[0], _ask_hipcc(candidate.compiler)
    else:
        raise ToolchainError(
            f"{candidate.compiler} is a clang, and {roots[0]} does not record a release of ROCm",
            expected=f"a file {roots[0]}/.info/version, as every ROCm has",
            remedy=f"set {_VARIABLE} to the folder of a ROCm installation",
        )
    return toolkit_search.at_least(
        Toolkit("rocm", version, root, candidate.compiler, candidate.reason),
        FLOORS["rocm"],
        _VARIABLE,
    )


def _ask_hipcc(hipcc: Path) -> Version:
    """The version of HIP that hipcc prints.

    Raises:
        ToolchainError: it prints none, or it is the one that runs nvcc.
    """
    if "Cuda compiler driver" in toolkit_search.output_of(hipcc, ["--version"], _VARIABLE):
        raise ToolchainError(
            f"{hipcc} compiles for NVIDIA GPUs: it runs nvcc",
            expected="the hipcc of a ROCm installation",
            remedy=f"set {_VARIABLE} to one, unset HIP_PLATFORM, or build for the device cuda",
        )
    return toolkit_search.ask(hipcc, r"HIP version: ([0-9]+\.[0-9]+(?:\.[0-9]+)?)", _VARIABLE)


def _possible_roots(compiler: Path) -> list[Path]:
    """Folders above ``compiler`` that may be ROCm's root, the closest first, links followed too."""
    found = []
    for path in (compiler, compiler.resolve()):
        folder = path.parent.parent
        found.append(folder)
        # clang is two or three folders further down: llvm/bin, lib/llvm/bin.
        found += [folder.parent, folder.parent.parent] if folder.name == "llvm" else []
    return list(dict.fromkeys(found))


def find_clang(toolkit: Toolkit) -> Path:
    """The clang of a ROCm, which CMake compiles HIP with: it does not accept hipcc.

    Raises:
        ToolchainError: it has none, or one that cannot compile for AMD GPUs.
    """
    own = [] if toolkit.compiler.name == "hipcc" else [toolkit.compiler]
    inside = [toolkit.root / name for name in _CLANGS]
    # A distribution's hipcc has its clang elsewhere, under a versioned name that hipcc knows.
    elsewhere = [Path(found)] if (found := shutil.which("amdclang++")) else []
    for clang in (*own, *inside, *elsewhere):
        if toolkit_search.is_program(clang):
            _require_amdgpu(clang)
            return clang
    raise ToolchainError(
        f"ROCm {toolkit.version} in {toolkit.root} has no clang",
        expected="one of " + ", ".join(str(toolkit.root / name) for name in _CLANGS[:3]),
        remedy="install ROCm's compiler (rocm-llvm), or set HIPCXX to a clang++ for AMD GPUs",
    )


def _require_amdgpu(clang: Path) -> None:
    if "amdgcn" not in toolkit_search.output_of(clang, ["-print-targets"], _VARIABLE):
        raise ToolchainError(
            f"{clang} cannot compile for AMD GPUs",
            expected="amdgcn among the targets of clang -print-targets",
            remedy=f"set {_VARIABLE} to a ROCm installation, or HIPCXX to its clang++",
        )
