# SPDX-License-Identifier: Apache-2.0
"""GPU architectures by device: default lists, the toolkits that compile them, compiler options.

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

#: The name of each device's toolkit, and the oldest release that a build accepts (contract, section
#: 2).
TOOLKITS: Mapping[str, str] = {"cuda": "CUDA", "rocm": "ROCm"}
FLOORS: Mapping[str, Version] = {"cuda": Version("11.8"), "rocm": Version("5.7")}
#: The variable that chooses the architectures of a device.
VARIABLES: Mapping[str, str] = {"cuda": "TORCH_CUDA_ARCH_LIST", "rocm": "PYTORCH_ROCM_ARCH"}
#: The project's lists. One list serves CUDA 12 and 13: CUDA 13 dropped the architectures before
#: 7.5, and the list begins there. Later chips of the newest entry's family run its PTX. If a
#: toolkit is too old for an entry, the entry is left out.
DEFAULTS: Mapping[str, str] = {
    "cuda": "7.5 8.0 8.6 8.9 9.0a 10.0f 12.0f+PTX",
    "rocm": "gfx90a gfx942 gfx950 gfx1030 gfx1100 gfx1201",
}

#: Compute capability -> the first CUDA release that compiles for it (None: every accepted one), and
#: the first that no longer does. Source: the output of `ptxas --help` and `nvcc --list-gpu-arch` in
#: each release from 11.8 to 13.5. Since 13.0, 10.1 is called 11.0.
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
#: Feature set -> the first chip that has it, and the first CUDA release that supports it.
_CUDA_FEATURES: Mapping[str, tuple[tuple[int, int], str]] = {
    "a": ((9, 0), "12.0"),
    "f": ((10, 0), "12.9"),
}
#: Processor -> the first ROCm release whose compiler supports it. For other processors the compiler
#: decides.
_ROCM_CHIPS: Mapping[str, str] = {
    "gfx942": "6.0",
    "gfx950": "7.0",
    "gfx1200": "6.3",
    "gfx1201": "6.3",
}

_CMAKE_ARCH = re.compile(r"([0-9]{1,2})([0-9])([af]?)(-real|-virtual)?")


def check_floor(device: str, version: Version | None) -> None:
    """Refuse a toolkit that is too old for the project; ``None`` (unknown) is accepted.

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
    """Why this toolkit cannot compile for ``arch``; None if it can or its version is unknown."""
    if version is None:
        return None
    if device == "rocm":
        first, gone = _ROCM_CHIPS.get(rocm_archs.processor(arch)), None
    else:
        (entry,) = cuda_archs.parse(arch, "architecture")
        # For chips newer than this table the compiler decides.
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
    """Read a list in the device's spelling; the result is ascending and has each entry once.

    Raises:
        ConfigurationError: an entry is malformed, there is no such chip, or the list is empty.
    """
    if device == "rocm":
        return rocm_archs.parse(text, source)
    entries = cuda_archs.parse(text, source)
    for entry in entries:
        # An unknown number between known ones is a typing error. For newer ones the compiler
        # decides.
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
    """The entries of the project's list that a toolkit compiles; all if its version is unknown."""
    entries = parse(device, DEFAULTS[device], "the default list")
    return tuple(entry for entry in entries if why_not_compiled(device, entry, version) is None)


def match(
    device: str, record: Iterable[str], targets: Iterable[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The architectures to compile a kernel for, and the targets that it cannot serve.

    ``record`` has the kernel's architectures (contract, section 5).
    """
    if device == "rocm":
        return rocm_archs.match(record, targets)

    def entries(names: Iterable[str]) -> tuple[cuda_archs.Arch, ...]:
        return tuple(entry for name in names for entry in cuda_archs.parse(name, "architecture"))

    found = cuda_archs.match(entries(record), entries(targets))
    return tuple(map(str, found.archs)), tuple(map(str, found.unserved))


def compile_options(device: str, compiled: Iterable[str]) -> tuple[str, ...]:
    """The options of nvcc or the HIP compiler for these architectures.

    Each option is one word, so that CMake neither splits nor merges them.
    """
    if device == "rocm":
        archs = tuple(compiled)
        # An error message of a launch lists them.
        return (
            *(f"--offload-arch={arch}" for arch in archs),
            f"-DVLLM_HIP_ARCHITECTURES={','.join(archs)}",
        )
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
    """Translate a list in CMake's spelling: ``80;90a-real`` becomes ``8.0+PTX;9.0a``.

    An entry without a suffix means binary and PTX.

    Raises:
        ConfigurationError: an entry is not an architecture, or it has no counterpart (``native``,
            ``all``, PTX without a binary).
    """
    entries = []
    for word in re.split(r"[;\s]+", text.strip()):
        found = _CMAKE_ARCH.fullmatch(word)
        if found is None or found[4] == "-virtual":
            raise ConfigurationError(
                f"{source}: {word!r} is not a list of GPU architectures",
                expected="entries such as 80, 90a-real or 120f, separated by semicolons",
                remedy=_cmake_remedy(word, source),
            )
        entries.append(f"{found[1]}.{found[2]}{found[3]}{'' if found[4] else '+PTX'}")
    return ";".join(entries)
