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
_HIP_VERSION = r"HIP version: ([0-9]+\.[0-9]+(?:\.[0-9]+)?)"
_CONDA_CLANG = "x86_64-conda-linux-gnu-clang++"
#: clang in a ROCm folder: AMD's name for it, and its places in ROCm 5.7 to 7.2 and in conda.
_CLANGS = (
    "bin/amdclang++",
    "lib/llvm/bin/clang++",
    "llvm/bin/clang++",
    f"bin/{_CONDA_CLANG}",
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


def _on_path(settings: Settings) -> Candidate | None:
    """Hipcc on PATH, else ROCm's own clang, else the clang of a conda environment with HIP."""
    for program in ("hipcc", "amdclang++"):
        if found := toolkit_search.on_path(program, settings):
            return found
    found = toolkit_search.on_path(_CONDA_CLANG, settings)
    return found if found and _has_hip(found.compiler.parent.parent) else None


def _has_hip(prefix: Path) -> bool:
    return (prefix / "share" / "hip" / "version").is_file()


def _in_conda(settings: Settings) -> Candidate | None:
    """Hipcc of a conda environment, or the clang of one that has HIP's headers."""
    prefixes = toolkit_search.conda_prefixes(settings)
    found = toolkit_search.in_folders(prefixes, "bin/hipcc")
    with_hip = [(reason, prefix) for reason, prefix in prefixes if _has_hip(prefix)]
    return found or toolkit_search.in_folders(with_hip, f"bin/{_CONDA_CLANG}")


def _in_usual_place() -> Candidate | None:
    """The first program that tells a ROCm, in the folder of AMD's packages."""
    for program in _PROGRAMS:
        if found := toolkit_search.in_folders([("the usual place", USUAL)], program):
            return found
    return None


def _search(settings: Settings) -> Candidate | None:
    """The compiler of the first place that has one.

    Raises:
        ToolchainError: a variable names a folder without a compiler.
    """
    return (
        toolkit_search.named(
            [("ROCM_HOME", settings.rocm_home), ("ROCM_PATH", settings.rocm_path)],
            [*_PROGRAMS, *_CLANGS[3:]],
            "a ROCm installation",
        )
        or _on_path(settings)
        or _in_conda(settings)
        or toolkit_search.in_folders(
            [("ROCm's wheels", site / "_rocm_sdk_devel") for site in toolkit_search.site_folders()],
            "bin/hipcc",
        )
        or _in_usual_place()
    )


def find_rocm(settings: Settings) -> Toolkit | None:
    """Find ROCm; None if no place has a compiler for HIP.

    The places are, in this order: ``ROCM_HOME``, ``ROCM_PATH``, ``PATH``, a conda environment, its
    wheels, ``/opt/rocm``.

    Raises:
        ToolchainError: neither ``.info/version`` nor hipcc names a release, ROCm is older than 5.7
            or not where a variable says, or the hipcc is the one for NVIDIA GPUs.
    """
    candidate = _search(settings)
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
    printed = toolkit_search.output_of(hipcc, ["--version"], _VARIABLE)
    if "Cuda compiler driver" in printed:
        raise ToolchainError(
            f"{hipcc} compiles for NVIDIA GPUs: it runs nvcc",
            expected="the hipcc of a ROCm installation",
            remedy=f"set {_VARIABLE} to one, unset HIP_PLATFORM, or build for the device cuda",
        )
    return toolkit_search.version_in(printed, _HIP_VERSION, hipcc, _VARIABLE)


def _possible_roots(compiler: Path) -> list[Path]:
    """Folders above ``compiler`` that may be ROCm's root, the closest first, links followed too."""
    found = []
    for path in (compiler, compiler.resolve()):
        folder = path.parent.parent
        found.append(folder)
        # clang is two or three folders further down: llvm/bin, lib/llvm/bin.
        found += [folder.parent, folder.parent.parent] if folder.name == "llvm" else []
    return list(dict.fromkeys(found))


def find_clang(toolkit: Toolkit, search_path: str | None) -> Path:
    """The clang of a ROCm, which CMake compiles HIP with: it does not accept hipcc.

    Args:
        toolkit: the ROCm.
        search_path: PATH of the build, see ``Settings.search_path``.

    Raises:
        ToolchainError: it has none, or one that cannot compile for AMD GPUs.
    """
    own = [] if toolkit.compiler.name == "hipcc" else [toolkit.compiler]
    inside = [toolkit.root / name for name in _CLANGS]
    # A distribution's hipcc has its clang elsewhere, under a versioned name that hipcc knows.
    elsewhere = [Path(found)] if (found := shutil.which("amdclang++", path=search_path)) else []
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
