# SPDX-License-Identifier: Apache-2.0
"""GPU architectures by device: the project's default lists, what each toolkit can compile, and its compiler options.

Architectures are strings in each device's own spelling: ``9.0a``
(:mod:`vllm_build.architectures.cuda_archs`) or ``gfx90a``
(:mod:`vllm_build.architectures.rocm_archs`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from packaging.version import Version

from vllm_build.architectures import cuda_archs, rocm_archs
from vllm_build.architectures.arch_spelling import suggestion
from vllm_build.util.errors import ConfigurationError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: The device's toolkit by name, and the oldest release of it that a build accepts (contract,
#: section 2).
TOOLKITS: Mapping[str, str] = {"cuda": "CUDA", "rocm": "ROCm"}
FLOORS: Mapping[str, Version] = {"cuda": Version("11.8"), "rocm": Version("5.7")}
#: The variable that chooses the architectures of a device.
VARIABLES: Mapping[str, str] = {"cuda": "TORCH_CUDA_ARCH_LIST", "rocm": "PYTORCH_ROCM_ARCH"}
#: The project's lists. One list serves CUDA 12 and 13: 13 dropped what is older than 7.5, and the
#: list begins there. PTX of the newest entry lets chips of its family that come later run. A
#: toolkit that is too old for an entry leaves it out.
DEFAULTS: Mapping[str, str] = {
    "cuda": "7.5 8.0 8.6 8.9 9.0a 10.0f 12.0f+PTX",
    "rocm": "gfx908 gfx90a gfx942 gfx950 gfx1030 gfx1100 gfx1101 gfx1200 gfx1201",
}

#: Compute capability -> first CUDA release that compiles for it (None: any above the floor), first
#: that does no longer. Source: what `ptxas --help` lists, and `nvcc --list-gpu-arch`, in each
#: release from 11.8 to 13.5. 10.1 is called 11.0 since 13.0.
_CUDA_CHIPS: Mapping[tuple[int, int], tuple[str | None, str | None]] = {
    **dict.fromkeys([(3, 5), (3, 7)], (None, "12.0")),
    **dict.fromkeys(
        [(5, 0), (5, 2), (5, 3), (6, 0), (6, 1), (6, 2), (7, 0), (7, 2)], (None, "13.0")
    ),
    **dict.fromkeys([(7, 5), (8, 0), (8, 6), (8, 7)], (None, None)),
    **dict.fromkeys([(8, 9), (9, 0)], ("11.8", None)),
    **dict.fromkeys([(10, 0), (12, 0)], ("12.8", None)),
    (10, 1): ("12.8", "13.0"),
    **dict.fromkeys([(10, 3), (12, 1)], ("12.9", None)),
    **dict.fromkeys([(8, 8), (11, 0)], ("13.0", None)),
    (10, 7): ("13.4", None),
}
#: Feature set -> first chip that has one, first CUDA release that knows it.
_CUDA_FEATURES: Mapping[str, tuple[tuple[int, int], str]] = {
    "a": ((9, 0), "12.0"),
    "f": ((10, 0), "12.9"),
}
#: Processor -> first ROCm release whose compiler supports it; those not named here are left to the
#: compiler's own judgement.
_ROCM_CHIPS: Mapping[str, str] = {
    "gfx942": "6.0",
    "gfx950": "7.0",
    "gfx1200": "6.3",
    "gfx1201": "6.3",
}

_CMAKE_ARCH = re.compile(r"([0-9]{1,2})([0-9])([af]?)(-real|-virtual)?")


def check_floor(device: str, version: Version | None) -> None:
    """Refuse a toolkit that is older than the project supports; ``None`` (unknown) passes.

    Raises:
        ToolchainError: it is too old.
    """
    floor = FLOORS.get(device)
    if floor is not None and version is not None and version < floor:
        name = TOOLKITS[device]
        raise ToolchainError(
            f"{name} {version} is too old",
            expected=f"{name} >= {floor}",
            remedy=f"install a newer {name}",
        )


def why_not_compiled(device: str, arch: str, version: Version | None) -> str | None:
    """Why the toolkit of that version cannot compile for ``arch``, in words; None when it can, or when the version is not known."""
    if version is None:
        return None
    if device == "rocm":
        first, gone = _ROCM_CHIPS.get(rocm_archs.processor(arch)), None
    else:
        (entry,) = cuda_archs.parse(arch, "architecture")
        # A chip newer than this table is the compiler's to judge.
        first, gone = _CUDA_CHIPS.get(entry.number, (None, None))
        if entry.feature:
            known = _CUDA_FEATURES[entry.feature][1]
            first = max(known, first or known, key=Version)
    if first is not None and version < Version(first):
        return f"{arch} needs {TOOLKITS[device]} >= {first}"
    if gone is not None and version >= Version(gone):
        return f"{arch} was dropped by {TOOLKITS[device]} {gone}"
    return None


def number(arch: str) -> tuple[int, int]:
    """The compute capability of one CUDA architecture."""
    (entry,) = cuda_archs.parse(arch, "architecture")
    return entry.number


def parse(device: str, text: str, source: str) -> tuple[str, ...]:
    """Read a list in the device's spelling: ascending, each entry once.

    Raises:
        ConfigurationError: an entry is malformed or no such chip exists, or there is none.
    """
    if device == "rocm":
        return rocm_archs.parse(text, source)
    entries = cuda_archs.parse(text, source)
    for entry in entries:
        # A number between known ones that no toolkit lists is a slip; a newer one is the compiler's
        # to judge.
        exists = entry.number in _CUDA_CHIPS or entry.number > max(_CUDA_CHIPS)
        if not exists or (entry.feature and entry.number < _CUDA_FEATURES[entry.feature][0]):
            raise ConfigurationError(
                f"{source}: there is no GPU architecture {entry}",
                expected="one of "
                + ", ".join(f"{major}.{minor}" for major, minor in sorted(_CUDA_CHIPS))
                + "; with 'a' from 9.0, 'f' from 10.0",
                remedy=f"correct {source}",
            )
    return tuple(map(str, entries))


def default(device: str, version: Version | None) -> tuple[str, ...]:
    """The project's list, cut to what the toolkit compiles; all of it when the version is not known."""
    entries = parse(device, DEFAULTS[device], "the default list")
    return tuple(entry for entry in entries if why_not_compiled(device, entry, version) is None)


def match(
    device: str, record: Iterable[str], targets: Iterable[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a kernel with the architectures ``record`` is compiled for, and the targets it does not serve (contract, section 5)."""
    if device == "rocm":
        return rocm_archs.match(record, targets)

    def entries(names: Iterable[str]) -> tuple[cuda_archs.Arch, ...]:
        return tuple(entry for name in names for entry in cuda_archs.parse(name, "architecture"))

    found = cuda_archs.match(entries(record), entries(targets))
    return tuple(map(str, found.archs)), tuple(map(str, found.unserved))


def compile_options(device: str, compiled: Iterable[str]) -> tuple[str, ...]:
    """Options of nvcc or the HIP compiler for these architectures, one word each so that CMake neither splits nor merges them."""
    if device == "rocm":
        return tuple(f"--offload-arch={arch}" for arch in compiled)
    options = []
    for name in compiled:
        (arch,) = cuda_archs.parse(name, "architecture")
        digits = f"{arch.major}{arch.minor}{arch.feature}"
        options.append(f"-gencode=arch=compute_{digits},code=sm_{digits}")
        if arch.ptx:
            options.append(f"-gencode=arch=compute_{digits},code=compute_{digits}")
    return tuple(options)


def _cmake_remedy(word: str, source: str) -> str:
    said = suggestion(word, cuda_archs.NAMED)
    if said and said.startswith("write "):
        entry = said.removeprefix("write ")
        said = (
            f"write {entry.removesuffix('+PTX').replace('.', '')} in {source}, or {entry} in "
            f"{VARIABLES['cuda']}"
        )
    return said or f"name the architectures, or unset {source} and use {VARIABLES['cuda']}"


def from_cmake(text: str, source: str) -> str:
    """Translate a list in CMake's spelling: ``80;90a-real`` becomes ``8.0+PTX;9.0a``, as CMake means it (no suffix: binary and PTX).

    Raises:
        ConfigurationError: an entry that is no architecture, or one that has no counterpart
            (``native``, ``all``, PTX without a binary).
    """
    entries = []
    for word in re.split(r"[;\s]+", text.strip()):
        found = _CMAKE_ARCH.fullmatch(word)
        if found is None or found[4] == "-virtual":
            raise ConfigurationError(
                f"{source}: {word!r} is no list of GPU architectures",
                expected="entries such as 80, 90a-real or 120f, separated by semicolons",
                remedy=_cmake_remedy(word, source),
            )
        entries.append(f"{found[1]}.{found[2]}{found[3]}{'' if found[4] else '+PTX'}")
    return ";".join(entries)
