# SPDX-License-Identifier: Apache-2.0
"""Suggests corrections for misspelt GPU architectures.

The text may be the spelling of another tool or of another list, or a typing error.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

#: The spellings of nvcc, CMake and people: ``90``, ``sm_90a``, ``compute_120f``, ``90a-real``,
#: ``9.0A+ptx``, ``9``.
_NVIDIA = re.compile(
    r"(?:sm_?|compute_?|lto_?)?(?:([0-9]{1,2})[.,]([0-9])0?|([0-9]{1,2})([0-9])|([0-9]))"
    r"([af]?)(-real|-virtual)?(\+ptx)?",
    re.IGNORECASE,
)
#: Product names of GPUs, by the processor that LLVM's AMDGPU guide lists for each.
_AMD_PRODUCTS = {
    "gfx908": ("mi100",),
    "gfx90a": ("mi200", "mi210", "mi250", "mi250x"),
    "gfx942": ("mi300", "mi300a", "mi300x", "mi325x"),
    "gfx950": ("mi350", "mi350x", "mi355x"),
}
_NATIVE = (
    "name the architectures: a build does not ask this machine's GPU, because its result must be "
    "the same on every machine; `nvidia-smi --query-gpu=compute_cap --format=csv` shows the "
    "architecture of an NVIDIA GPU, `rocminfo` that of an AMD GPU"
)
_EVERYTHING = (
    "unset the variable: the default is every architecture of the project's list that "
    "the toolkit supports"
)
_COMMAS = "separate entries with semicolons, not commas"


def _word(word: str) -> str | None:
    lower = word.lower()
    if lower in ("native", "auto"):
        return _NATIVE
    if lower in ("all", "all-major", "common"):
        return _EVERYTHING
    return None


def _closest(word: str, known: Iterable[str]) -> str | None:
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.75)
    return by_lower[found[0]] if found else None


def _nvidia(word: str) -> str | None:
    match = _NVIDIA.fullmatch(word)
    if match is None:
        return None
    major, minor = match[1] or match[3] or match[5], match[2] or match[4] or "0"
    ptx = match[8] or match[7] == "-virtual"
    return f"{int(major)}.{minor}{match[6].lower()}{'+PTX' if ptx else ''}" if int(major) else None


def suggestion(word: str, names: Iterable[str]) -> str | None:
    """A correction for ``word``, which is not a CUDA architecture; None if nothing is similar.

    Args:
        word: one entry of a list.
        names: the code names that a list may contain.
    """
    if said := _word(word):
        return said
    if re.fullmatch(r"[0-9],[0-9]", word):
        return f"write {word.replace(',', '.')}"
    if "," in word:
        return _COMMAS
    spelled = _nvidia(word) or _closest(word, names)
    return f"write {spelled}" if spelled else None


def gfx_suggestion(word: str, known: Collection[str]) -> str | None:
    """A correction for ``word``, which is not an AMD architecture; None if nothing is similar.

    Args:
        word: one entry of a list.
        known: the processors that this library knows.
    """
    if said := _word(word):
        return said
    if "," in word:
        return _COMMAS
    lower = word.lower().removeprefix("amdgcn-").lstrip("-")
    for processor, products in _AMD_PRODUCTS.items():
        if lower in products:
            return f"write {processor}"
    for candidate in (lower, f"gfx{lower}"):
        spelled = re.fullmatch(r"(gfx[0-9]{1,2}[0-9a-f]{2})((:(sramecc|xnack)[+-])*)", candidate)
        if spelled and spelled[1] in known:
            return f"write {candidate}"
    if lower.endswith("-generic"):
        return "name processors: each kernel is compiled for the processors in csrc/kernels.toml"
    found = _closest(lower, known)
    return f"write {found}" if found else None
