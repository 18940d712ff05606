# SPDX-License-Identifier: Apache-2.0
"""GPU architectures: reads lists of them, and matches what a kernel is written for with what a build is for (contract, section 5)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vllm_build.architectures.arch_spelling import suggestion
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ARCH = re.compile(r"([0-9]{1,2})\.([0-9])([af]?)(\+PTX)?")
#: Order of entries of one number: the plain one serves most chips, `f` a family, `a` one chip.
_FEATURES = ("", "f", "a")
#: The names that TORCH_CUDA_ARCH_LIST takes instead of numbers, as torch.utils.cpp_extension spells
#: them out.
NAMED = {
    "Maxwell": "5.0;5.2+PTX",
    "Pascal": "6.0;6.1+PTX",
    "Volta": "7.0+PTX",
    "Turing": "7.5+PTX",
    "Ampere": "8.0;8.6+PTX",
    "Ada": "8.9+PTX",
    "Hopper": "9.0+PTX",
    "Blackwell": "10.0;10.3;12.0;12.1+PTX",
}
#: Family code (`f`) by the number it is named after: the chips that run it. Source: NVIDIA's CUDA
#: programming guide on family-specific features, and ptxas of CUDA 12.9 to 13.5, which assembles
#: PTX of `sm_100f` for these members alone ("cannot be compiled to different SM-family
#: architecture"). CUDA 13.0 renamed 10.1 to 11.0: one chip, two names. A chip not listed runs its
#: own number's family code.
FAMILIES: Mapping[tuple[int, int], frozenset[tuple[int, int]]] = {
    (10, 0): frozenset({(10, 0), (10, 3), (10, 7)}),
    (10, 1): frozenset({(10, 1), (11, 0)}),
    (10, 3): frozenset({(10, 3), (10, 7)}),
    (10, 7): frozenset({(10, 7)}),
    (11, 0): frozenset({(10, 1), (11, 0)}),
    (12, 0): frozenset({(12, 0), (12, 1)}),
    (12, 1): frozenset({(12, 1)}),
}


@dataclass(frozen=True)
class Arch:
    """One entry of a list: compute capability, feature set and whether PTX is kept beside the binary.

    Attributes:
        major, minor: the compute capability.
        feature: ``""`` for the plain instruction set, ``a`` for exactly this chip's, ``f`` for its
            family's.
        ptx: PTX goes into the binary as well, for chips that come later.
    """

    major: int
    minor: int
    feature: str = ""
    ptx: bool = False

    @property
    def number(self) -> tuple[int, int]:
        """The compute capability; a target's own feature does not change it."""
        return self.major, self.minor

    @property
    def order(self) -> tuple[int, int, int]:
        """Ascending order of lists."""
        return self.major, self.minor, _FEATURES.index(self.feature)

    @property
    def family(self) -> frozenset[tuple[int, int]]:
        """The compute capabilities that run this entry's family code; empty unless the entry is a family's (``f``)."""
        return (
            FAMILIES.get(self.number, frozenset({self.number}))
            if self.feature == "f"
            else frozenset()
        )

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}{self.feature}{'+PTX' if self.ptx else ''}"


@dataclass(frozen=True)
class Match:
    """What a kernel is compiled for, ascending, and the targets that nothing in its record serves."""

    archs: tuple[Arch, ...]
    unserved: tuple[Arch, ...]


def parse(text: str, source: str) -> tuple[Arch, ...]:
    """Read a list such as ``"8.0;9.0a 12.0+PTX"``; ascending, each entry once, PTX kept where any spelling asks for it.

    Args:
        text: entries separated by semicolons or blanks, numbers or torch's names.
        source: the variable or file that holds it, for messages.

    Raises:
        ConfigurationError: an entry is no architecture, or there is none.
    """
    found: dict[tuple[int, int, int], Arch] = {}
    words = [
        word
        for name in re.split(r"[;\s]+", text.strip())
        if name
        for word in NAMED.get(name, name).split(";")
    ]
    for word in words:
        match = _ARCH.fullmatch(word)
        if match is None:
            raise ConfigurationError(
                f"{source}: {word!r} is no GPU architecture",
                expected="entries such as 8.0, 9.0a, 10.0f or 12.0+PTX, or one of "
                + ", ".join(NAMED),
                remedy=suggestion(word, NAMED) or f"correct {source}",
            )
        arch = Arch(int(match[1]), int(match[2]), match[3], match[4] is not None)
        known = found.get(arch.order)
        found[arch.order] = arch if known is None else replace(arch, ptx=arch.ptx or known.ptx)
    if not found:
        raise ConfigurationError(
            f"{source} names no GPU architecture",
            expected="entries such as 8.0 or 9.0a",
            remedy=f"unset {source} for the default list",
        )
    return tuple(found[order] for order in sorted(found))


def serving_entry(record: tuple[Arch, ...], target: Arch) -> Arch | None:
    """The entry of a kernel's record that serves ``target``: the first that exists in the order of the contract; None when none does."""
    below = sorted(
        (arch for arch in record if arch.number <= target.number),
        key=lambda arch: arch.order,
        reverse=True,
    )
    same = [arch for arch in below if arch.major == target.major]
    family = sorted(
        (arch for arch in record if target.number in arch.family),
        key=lambda arch: arch.order,
        reverse=True,
    )
    for candidates in (
        [arch for arch in same if arch.number == target.number and arch.feature == "a"],
        [arch for arch in same if arch.number == target.number and not arch.feature],
        family,
        [arch for arch in same if not arch.feature],
        [arch for arch in below if arch.ptx],
    ):
        if candidates:
            return candidates[0]
    return None


def match(record: tuple[Arch, ...], targets: tuple[Arch, ...]) -> Match:
    """Choose the entries of ``record`` that serve ``targets``: as the record spells them, each once.

    A target with PTX adds PTX to the entry that serves it.
    """
    chosen: dict[Arch, bool] = {}
    unserved = []
    for target in targets:
        entry = serving_entry(record, target)
        if entry is None:
            unserved.append(target)
        else:
            chosen[entry] = chosen.get(entry, entry.ptx) or target.ptx
    archs = sorted(
        (replace(entry, ptx=ptx) for entry, ptx in chosen.items()), key=lambda arch: arch.order
    )
    return Match(tuple(archs), tuple(unserved))
