# SPDX-License-Identifier: Apache-2.0
"""AMD GPU architectures: reads lists of processor names such as ``gfx90a`` and matches a kernel's record with what a build is for.

The names and their ``xnack`` and ``sramecc`` settings are LLVM's target identifiers (User Guide for
AMDGPU Backend, "Target ID").
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vllm_build.architectures.arch_spelling import gfx_suggestion
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Processors of ROCm's data centre and desktop GPUs, for suggestions; any well-formed name is
#: accepted, and judged by the compiler.
KNOWN = (
    *("gfx906", "gfx908", "gfx90a", "gfx942", "gfx950", "gfx1030", "gfx1031", "gfx1032"),
    *("gfx1100", "gfx1101", "gfx1102", "gfx1103", "gfx1150", "gfx1151", "gfx1200", "gfx1201"),
)
_PROCESSOR = re.compile(r"gfx([0-9]{1,2})([0-9a-f])([0-9a-f])")
_TARGET = re.compile(r"(gfx[0-9]{1,2}[0-9a-f][0-9a-f])((?::(?:sramecc|xnack)[+-])*)")


def processor(target: str) -> str:
    """The processor of a target: ``gfx90a`` of ``gfx90a:xnack-``."""
    return target.partition(":")[0]


def _order(target: str) -> tuple[int, str, str]:
    match = _PROCESSOR.match(target)
    if match is None:
        raise AssertionError(target)
    return int(match[1]), match[2] + match[3], target


def _settings(target: str) -> tuple[str, ...]:
    return tuple(part[:-1] for part in target.split(":")[1:])


def parse(text: str, source: str) -> tuple[str, ...]:
    """Read a list such as ``"gfx90a;gfx942"``; ascending, each entry once, settings in alphabetical order.

    Args:
        text: entries separated by semicolons or blanks.
        source: the variable or file that holds it, for messages.

    Raises:
        ConfigurationError: an entry is no architecture, there is none, or two entries of one
            processor cannot stand in one binary (the compiler wants a setting on all entries of a
            processor or on none).
    """
    found: dict[str, tuple[str, ...]] = {}
    for word in re.split(r"[;\s]+", text.strip()):
        if not word:
            continue
        match = _TARGET.fullmatch(word)
        parts = sorted(match[2].split(":")[1:]) if match else []
        if match is None or len({part[:-1] for part in parts}) < len(parts):
            raise ConfigurationError(
                f"{source}: {word!r} is no AMD GPU architecture",
                expected="entries such as gfx90a, gfx942 or gfx90a:xnack-, separated by semicolons",
                remedy=gfx_suggestion(word, KNOWN) or f"correct {source}",
            )
        target = ":".join((match[1], *parts))
        for other, settings in found.items():
            if processor(other) == match[1] and settings != _settings(target):
                raise ConfigurationError(
                    f"{source}: {other!r} and {target!r} cannot stand in one binary",
                    expected="the same settings (xnack, sramecc) spelled out on every entry of a "
                    "processor",
                    remedy=f"drop one of them from {source}",
                )
        found[target] = _settings(target)
    if not found:
        raise ConfigurationError(
            f"{source} names no AMD GPU architecture",
            expected="entries such as gfx90a or gfx942",
            remedy=f"unset {source} for the default list",
        )
    return tuple(sorted(found, key=_order))


def match(record: Iterable[str], targets: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a kernel is compiled for, ascending, and the targets that nothing in its record serves.

    No processor runs another's code, so a target is served by an entry of its own processor: the
    same spelling, else the plain name, which a target with settings narrows: ``gfx90a`` serves
    ``gfx90a:xnack-``, and is then compiled for exactly that.
    """
    entries = set(record)
    compiled, unserved = set(), []
    for target in targets:
        if target in entries or processor(target) in entries:
            compiled.add(target)
        else:
            unserved.append(target)
    return tuple(sorted(compiled, key=_order)), tuple(unserved)
