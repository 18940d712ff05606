# SPDX-License-Identifier: Apache-2.0
"""Reads ``requirements/<device>.txt``, the one source of run dependencies for pip and conda (build contract, section 6)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement

from vllm_build.errors import ConfigurationError
from vllm_build.files import read_text
from vllm_build.settings import DEVICES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_INCLUDE = re.compile(r"(?:-r\s*|--requirement(?:\s+|=))(?P<file>\S.*)")
#: A comment begins the line or follows white space; a `#` inside a URL is part of it.
_COMMENT = re.compile(r"(^|\s)#.*")
#: Options of one requirement, such as `--hash=sha256:…`, are not part of it.
_OPTIONS = re.compile(r"\s+--\S.*")


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, those that end with a backslash joined with the next; each with the number of its first."""
    begin, parts = 1, ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = _COMMENT.sub("", raw)
        begin = begin if parts else number
        if line.endswith("\\"):
            parts += line[:-1] + " "
            continue
        yield begin, (parts + line).strip()
        parts = ""
    yield begin, parts.strip()


def _lines(path: Path, including: tuple[Path, ...]) -> Iterator[str]:
    if path in including:
        circle = " includes ".join(each.name for each in (*including[including.index(path) :], path))
        raise ConfigurationError(f"{path} includes itself: {circle}", expected="-r lines without a circle")
    try:
        text = read_text(path)
    except FileNotFoundError as error:
        by = f", which {including[-1]} includes," if including else ""
        raise ConfigurationError(f"{path}{by} does not exist", expected="a file with requirements") from error
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}", expected="a file with requirements") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 at byte {error.start}", expected="requirements as UTF-8 text") from error
    for number, line in _joined(text):
        if include := _INCLUDE.fullmatch(line):
            yield from _lines(path.parent / include["file"].strip(), (*including, path))
        elif line and not line.startswith("-"):
            requirement = _OPTIONS.sub("", line)
            try:
                Requirement(requirement)
            except InvalidRequirement as error:
                raise ConfigurationError(
                    f"{path}:{number}: {requirement!r} is not a requirement: {error}", expected="a requirement as PEP 508 defines it"
                ) from error
            yield requirement


def read(root: Path, device: str) -> list[str]:
    """The requirements of ``device``, each once; ``empty`` has the common ones alone. Options and comments are not requirements.

    Raises:
        ConfigurationError: no such device, a file is missing, a line is malformed, or files include each other in a circle.
    """
    if device not in DEVICES:
        raise ConfigurationError(f"no requirements for device {device!r}", expected="one of " + ", ".join(DEVICES))
    name = "common" if device == "empty" else device
    return list(dict.fromkeys(_lines(root / "requirements" / f"{name}.txt", ())))
