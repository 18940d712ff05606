# SPDX-License-Identifier: Apache-2.0
"""CUDA architectures: reads lists, and matches a kernel's with a build's (contract, section 5)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vllm_build.architectures.arch_spelling import suggestion
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ARCH = re.compile(r"([0-9]{1,2})\.([0-9])([af]?)(\+PTX)?")
#: The order of entries with the same number: the plain one serves most chips, `f` a family, `a` one
#: chip.
_FEATURES = ("", "f", "a")
#: The names that TORCH_CUDA_ARCH_LIST accepts instead of numbers, with their meaning in
#: torch.utils.cpp_extension.
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
#: The chips that run family code (`f`), by its number. Source: NVIDIA's CUDA programming guide on
#: family-specific features, and ptxas of CUDA 12.9 to 13.5, which assembles PTX of `sm_100f` only
#: for these members ("cannot be compiled to different SM-family architecture"). CUDA 13.0 renamed
#: 10.1 to 11.0: these are two names of one chip. A chip that is not listed runs the family code of
#: its own number.
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
    """One entry of a list of architectures.

    Attributes:
        major, minor: the compute capability.
        feature: ``""`` for the plain instruction set, ``a`` for that of exactly this chip, ``f``
            for that of its family.
        ptx: the binary also contains PTX, for later chips.
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
        """The sort key of lists, which are ascending."""
        return self.major, self.minor, _FEATURES.index(self.feature)

    @property
    def family(self) -> frozenset[tuple[int, int]]:
        """The compute capabilities that run this entry's family code; empty unless it is ``f``."""
        return (
            FAMILIES.get(self.number, frozenset({self.number}))
            if self.feature == "f"
            else frozenset()
        )

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}{self.feature}{'+PTX' if self.ptx else ''}"


@dataclass(frozen=True)
class Match:
    """The architectures to compile a kernel for, ascending, and the targets it cannot serve."""

    archs: tuple[Arch, ...]
    unserved: tuple[Arch, ...]


def parse(text: str, source: str) -> tuple[Arch, ...]:
    """Read a list such as ``"8.0;9.0a 12.0+PTX"``.

    Args:
        text: numbers or torch's names, separated by semicolons or blanks.
        source: the variable or file that contains the list, for messages.

    Returns:
        The distinct entries, ascending. If an entry occurs with and without PTX, it has PTX.

    Raises:
        ConfigurationError: an entry is not an architecture, or the list is empty.
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
                f"{source}: {word!r} is not a GPU architecture",
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
    """The entry of a kernel's record that serves ``target``; None if none does.

    Of several, the contract's order decides.
    """
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
    """Choose the entries of ``record`` that serve ``targets``, each once.

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
