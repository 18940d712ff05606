# SPDX-License-Identifier: Apache-2.0
"""Our changes to third-party sources: unified diffs, applied exactly or not at all.

No ``patch`` program is needed, and none of its guesses is made: a hunk fits at the very line it
names, or the sources are not the ones that the change was written for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.util.errors import ConfigurationError, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

_HUNK = re.compile(r"@@ -([0-9]+)(?:,([0-9]+))? \+[0-9]+(?:,([0-9]+))? @@.*")


@dataclass(frozen=True)
class Hunk:
    """Lines ``old``, the first of them number ``start`` (from 1), become ``new``."""

    start: int
    old: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True)
class Patch:
    """Changes of one file: its path relative to the project, and the hunks in their order."""

    path: str
    hunks: tuple[Hunk, ...]


def _hunk(lines: list[str], at: int, name: str) -> tuple[Hunk, int]:
    match = _HUNK.fullmatch(lines[at])
    if match is None:
        raise ConfigurationError(
            f"{name}:{at + 1}: {lines[at]!r} begins no hunk",
            expected="@@ -<line>,<count> +<line>,<count> @@",
        )
    start, olds, news = int(match[1]), int(match[2] or 1), int(match[3] or 1)
    old: list[str] = []
    new: list[str] = []
    at += 1
    while len(old) < olds or len(new) < news:
        # An empty line that did not change may have lost its space, as editors take it for one at
        # the end of a line.
        line = "" if at >= len(lines) - 1 else lines[at] or " "
        if line[:1] not in (" ", "-", "+") or not line:
            raise ConfigurationError(
                f"{name}:{at + 1}: the hunk is cut short",
                expected=f"{olds} old and {news} new lines",
            )
        if line[0] in " -":
            old.append(line[1:])
        if line[0] in " +":
            new.append(line[1:])
        at += 1
    if (len(old), len(new)) != (olds, news):
        raise ConfigurationError(
            f"{name}:{at}: the hunk is longer than it says",
            expected=f"{olds} old and {news} new lines",
        )
    # A hunk without old lines is put behind the line that it names.
    return Hunk(start if old else start + 1, tuple(old), tuple(new)), at


def parse(text: str, name: str) -> tuple[Patch, ...]:
    """The changes of a unified diff; lines before the first ``---`` say what for.

    ``name`` is for messages.

    Raises:
        ConfigurationError: it is no unified diff of files that exist before and after.
    """
    lines = text.split("\n")
    found: list[Patch] = []
    at = 0
    while at < len(lines):
        if not lines[at].startswith("--- "):
            if found and lines[at]:
                raise ConfigurationError(
                    f"{name}:{at + 1}: {lines[at]!r} belongs to no hunk",
                    expected="--- and +++, or a hunk",
                )
            at += 1
            continue
        after = lines[at + 1] if at + 1 < len(lines) else ""
        if not lines[at].startswith("--- a/") or after != "+++ b/" + lines[at][len("--- a/") :]:
            raise ConfigurationError(
                f"{name}:{at + 1}: not one file before and after",
                expected="--- a/<path> and +++ b/<the same path>",
            )
        path, hunks = after[len("+++ b/") :], []
        at += 2
        while at < len(lines) and lines[at].startswith("@@"):
            hunk, at = _hunk(lines, at, name)
            hunks.append(hunk)
        found.append(Patch(path, tuple(hunks)))
    if not any(patch.hunks for patch in found):
        raise ConfigurationError(f"{name} changes nothing", expected="a unified diff")
    return tuple(found)


def read(folder: Path) -> tuple[Patch, ...]:
    """All changes in the ``.patch`` files of a folder, by name; none when there is no such folder.

    Raises:
        ConfigurationError: as ``parse``, or two files change the same path.
    """
    found = [
        patch
        for path in sorted(folder.glob("*.patch"))
        for patch in parse(path.read_text(encoding="utf-8"), str(path))
    ]
    paths = [patch.path for patch in found]
    for path in paths:
        if paths.count(path) > 1:
            raise ConfigurationError(
                f"{folder}: {path} is changed twice", expected="one patch for each file"
            )
    return tuple(found)


def apply(patch: Patch, text: str, where: str) -> str:
    """``text`` with the changes of ``patch``; ``where`` is for messages.

    Raises:
        IntegrityError: the text is not the one that the patch was written for.
    """
    lines = text.split("\n")
    shift = 0
    for hunk in patch.hunks:
        at = hunk.start - 1 + shift
        if at < 0 or tuple(lines[at : at + len(hunk.old)]) != hunk.old:
            raise IntegrityError(
                f"our change of {patch.path} does not fit {where} at line {hunk.start}",
                expected="the sources that third_party/lock.toml names",
                remedy="build with those, or adapt the change in third_party/patches",
            )
        lines[at : at + len(hunk.old)] = hunk.new
        shift += len(hunk.new) - len(hunk.old)
    return "\n".join(lines)
