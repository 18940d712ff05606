# SPDX-License-Identifier: Apache-2.0
"""AMD GPU architectures: reads lists such as ``gfx90a``, and matches a kernel's with a build's.

The names and their ``xnack`` and ``sramecc`` settings are LLVM's target identifiers (User Guide for
AMDGPU Backend, "Target ID").
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vllm_build.architectures.arch_spelling import gfx_suggestion
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_BOTH = ("sramecc", "xnack")
#: Processor -> the settings that its targets may have. Source: what clang 22 accepts. A kernel is
#: compiled for the processors that its record names, so a new processor needs a change here, too.
PROCESSORS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(["gfx900", "gfx902", "gfx904"], ("xnack",)),
    **dict.fromkeys(["gfx906", "gfx908"], _BOTH),
    **dict.fromkeys(["gfx909", "gfx90c"], ("xnack",)),
    **dict.fromkeys(["gfx90a", "gfx942", "gfx950"], _BOTH),
    **dict.fromkeys(["gfx1010", "gfx1011", "gfx1012", "gfx1013"], ("xnack",)),
    **dict.fromkeys(["gfx1030", "gfx1031", "gfx1032", "gfx1033", "gfx1034", "gfx1035"], ()),
    **dict.fromkeys(["gfx1036", "gfx1100", "gfx1101", "gfx1102", "gfx1103", "gfx1150"], ()),
    **dict.fromkeys(["gfx1151", "gfx1152", "gfx1153", "gfx1200", "gfx1201"], ()),
    **dict.fromkeys(["gfx1250", "gfx1251"], ()),
}
_PROCESSOR = re.compile(r"gfx([0-9]{1,2})([0-9a-f])([0-9a-f])")
_TARGET = re.compile(r"(gfx[0-9]{1,2}[0-9a-f][0-9a-f])((?::(?:sramecc|xnack)[+-])*)")


def processor(target: str) -> str:
    """The processor of a target: ``gfx90a`` for ``gfx90a:xnack-``."""
    return target.partition(":")[0]


def _order(target: str) -> tuple[int, str, str]:
    match = _PROCESSOR.match(target)
    if match is None:
        raise AssertionError(target)
    return int(match[1]), match[2] + match[3], target


def _settings(target: str) -> tuple[str, ...]:
    return tuple(part[:-1] for part in target.split(":")[1:])


def _require_known(name: str, parts: Iterable[str], source: str) -> None:
    """Refuse a processor that does not exist, and settings that a processor does not have."""
    if name not in PROCESSORS:
        raise ConfigurationError(
            f"{source}: there is no AMD GPU architecture {name}",
            expected="one of " + ", ".join(sorted(PROCESSORS, key=_order)),
            remedy=gfx_suggestion(name, PROCESSORS) or f"correct {source}",
        )
    has = PROCESSORS[name]
    for part in parts:
        if part[:-1] not in has:
            settings = "only the setting " + " and ".join(has) if has else "no settings"
            raise ConfigurationError(
                f"{source}: {name} has no setting {part[:-1]}",
                expected=f"{name}, which has {settings}",
                remedy=f"write {name} in {source}",
            )


def parse(text: str, source: str) -> tuple[str, ...]:
    """Read a list such as ``"gfx90a;gfx942"``.

    Args:
        text: entries separated by semicolons or blanks.
        source: the variable or file that contains the list, for messages.

    Returns:
        The distinct entries, ascending, each with its settings in alphabetical order.

    Raises:
        ConfigurationError: an entry is not an architecture, the list is empty, a processor does not
            have a setting, or two entries of one processor exclude each other: the compiler
            requires a setting on all entries of a processor or on none.
    """
    found: dict[str, tuple[str, ...]] = {}
    for word in re.split(r"[;\s]+", text.strip()):
        if not word:
            continue
        match = _TARGET.fullmatch(word)
        parts = sorted(match[2].split(":")[1:]) if match else []
        if match is None or len({part[:-1] for part in parts}) < len(parts):
            raise ConfigurationError(
                f"{source}: {word!r} is not an AMD GPU architecture",
                expected="entries such as gfx90a, gfx942 or gfx90a:xnack-, separated by semicolons",
                remedy=gfx_suggestion(word, PROCESSORS) or f"correct {source}",
            )
        _require_known(match[1], parts, source)
        target = ":".join((match[1], *parts))
        for other, settings in found.items():
            if processor(other) == match[1] and settings != _settings(target):
                raise ConfigurationError(
                    f"{source}: {other!r} and {target!r} cannot be combined in one binary",
                    expected="the same settings (xnack, sramecc) on every entry of a processor",
                    remedy=f"remove one of them from {source}",
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
    """The architectures to compile a kernel for, ascending, and the targets that it cannot serve.

    No processor runs another's code, so only an entry of its own processor serves a target: the
    same spelling, else the plain name. A target with settings narrows a plain name: ``gfx90a``
    serves ``gfx90a:xnack-`` and is then compiled for exactly that.
    """
    entries = set(record)
    compiled, unserved = set(), []
    for target in targets:
        if target in entries or processor(target) in entries:
            compiled.add(target)
        else:
            unserved.append(target)
    return tuple(sorted(compiled, key=_order)), tuple(unserved)
