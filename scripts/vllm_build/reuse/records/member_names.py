# SPDX-License-Identifier: Apache-2.0
"""Rules for the names of members of archives and indexes.

A name decides where bytes are written, so it is checked before anything else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util.redaction import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterable

_LIBRARY = re.compile(r"vllm/(?:[A-Za-z0-9_]{1,64}/){0,2}[A-Za-z0-9_]{1,64}(?:\.abi3)?\.so")
_RECORD = re.compile(r"vllm/_build_info/([a-z0-9]+(?:-[a-z0-9]+)*)\.json")
#: Replaces the output's name if the libraries come from an official wheel.
FOREIGN = "foreign"
_LONGEST = 512
_DELETE = 0x7F


def is_library(name: str) -> bool:
    """Whether the name is the path of an extension library below ``vllm/``."""
    return _LIBRARY.fullmatch(name) is not None


def output_of(name: str) -> str | None:
    """The output, such as ``vllm-kernels``, whose record has this path; None for other paths."""
    match = _RECORD.fullmatch(name)
    return match[1] if match else None


def record_name(output: str) -> str:
    """The path of the record of ``output``."""
    return f"vllm/_build_info/{output}.json"


def _fault(name: str) -> tuple[str, str] | None:
    if any(ord(char) < ord(" ") or ord(char) == _DELETE for char in name) or len(name) > _LONGEST:
        return "name", f"a control character, or more than {_LONGEST} characters"
    if "\\" in name:
        return "backslash", "a backslash, which is a separator on some systems"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "absolute-path", "an absolute path"
    parts = name.removesuffix("/").split("/")
    if ".." in parts:
        return "parent-path", "a path that leads out of its folder"
    if "" in parts or "." in parts:
        return "name", "an empty part"
    return None


def check(found: Iterable[str], where: str) -> None:
    """Check all names of one archive.

    Raises:
        RefusedError: a name leads out of the folder, is not a plain relative path, or occurs
            twice; names that differ only in case count as equal.
    """
    seen: dict[str, str] = {}
    for name in found:
        if fault := _fault(name):
            raise RefusedError(
                fault[0],
                where,
                f"the member {excerpt(name, 100)!r} has {fault[1]}",
                expected="relative paths with forward slashes",
            )
        folded = name.removesuffix("/").casefold()
        if folded in seen:
            kind = "duplicate" if seen[folded] == name else "case-collision"
            raise RefusedError(
                kind,
                where,
                f"the members {seen[folded]!r} and {name!r} have the same path",
                expected="distinct names, ignoring case",
            )
        seen[folded] = name
