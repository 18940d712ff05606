# SPDX-License-Identifier: Apache-2.0
"""Reads ``requirements/<device>.txt``, the one source of run dependencies for pip and conda."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement

from vllm_build.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def _lines(path: Path, seen: frozenset[Path]) -> list[str]:
    if path in seen:
        raise ConfigurationError(f"{path} includes itself", expected="-r lines without a cycle")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path} does not exist", expected="a requirements file for this device") from error
    found: list[str] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split(" #", 1)[0].strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith(("-r ", "--requirement ")):
            found += _lines(path.parent / line.split(None, 1)[1], seen | {path})
        elif not line.startswith("-"):
            try:
                Requirement(line)
            except InvalidRequirement as error:
                raise ConfigurationError(
                    f"{path}:{number}: {line!r} is not a requirement: {error}", expected="a requirement as PEP 508 defines it"
                ) from error
            found.append(line)
    return found


def read(root: Path, device: str) -> list[str]:
    """The requirements of ``device``; ``empty`` has the common ones alone. Options and comments are not requirements.

    Raises:
        ConfigurationError: a file is missing, a line is malformed, or files include each other in a circle.
    """
    name = "common" if device == "empty" else device
    return list(dict.fromkeys(_lines(root / "requirements" / f"{name}.txt", frozenset())))
