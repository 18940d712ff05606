# SPDX-License-Identifier: Apache-2.0
"""Our patches of third-party sources: unified diffs that are applied exactly or not at all.

Applying them needs no ``patch`` program and never guesses, as that program does. If a hunk does not
fit at the line that it names, the sources are not those that the patch was written for.
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
    """Replaces the lines ``old``, which begin at line ``start`` (1-based), by ``new``."""

    start: int
    old: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True)
class Patch:
    """Changes to one file: its path relative to the project, and the hunks in order."""

    path: str
    hunks: tuple[Hunk, ...]


def _hunk(lines: list[str], at: int, name: str) -> tuple[Hunk, int]:
    match = _HUNK.fullmatch(lines[at])
    if match is None:
        raise ConfigurationError(
            f"{name}:{at + 1}: {lines[at]!r} does not begin a hunk",
            expected="@@ -<line>,<count> +<line>,<count> @@",
        )
    start, olds, news = int(match[1]), int(match[2] or 1), int(match[3] or 1)
    old: list[str] = []
    new: list[str] = []
    at += 1
    while len(old) < olds or len(new) < news:
        # Editors remove trailing spaces, so an unchanged empty line may have lost its only space.
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
            f"{name}:{at}: the hunk is longer than its header says",
            expected=f"{olds} old and {news} new lines",
        )
    # A hunk without old lines is inserted after the line that it names.
    return Hunk(start if old else start + 1, tuple(old), tuple(new)), at


def parse(text: str, name: str) -> tuple[Patch, ...]:
    """The changes in a unified diff. Lines before the first ``---`` are a description.

    ``name`` identifies the diff in messages.

    Raises:
        ConfigurationError: it is not a unified diff of files that exist before and after.
    """
    lines = text.split("\n")
    found: list[Patch] = []
    at = 0
    while at < len(lines):
        if not lines[at].startswith("--- "):
            if found and lines[at]:
                raise ConfigurationError(
                    f"{name}:{at + 1}: {lines[at]!r} does not belong to a hunk",
                    expected="--- and +++, or a hunk",
                )
            at += 1
            continue
        after = lines[at + 1] if at + 1 < len(lines) else ""
        if not lines[at].startswith("--- a/") or after != "+++ b/" + lines[at][len("--- a/") :]:
            raise ConfigurationError(
                f"{name}:{at + 1}: not the same file before and after",
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
    """All changes in the ``.patch`` files of a folder, by file name; none without the folder.

    Raises:
        ConfigurationError: as ``parse``, or two patches change the same file.
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
                f"{folder}: {path} is changed twice", expected="one patch per file"
            )
    return tuple(found)


def apply(patch: Patch, text: str, where: str) -> str:
    """Apply ``patch`` to ``text``; ``where`` names the sources in messages.

    Raises:
        IntegrityError: the patch was written for another text.
    """
    lines = text.split("\n")
    shift = 0
    for hunk in patch.hunks:
        at = hunk.start - 1 + shift
        if at < 0 or tuple(lines[at : at + len(hunk.old)]) != hunk.old:
            raise IntegrityError(
                f"our patch of {patch.path} does not fit {where} at line {hunk.start}",
                expected="the sources that third_party/lock.toml names",
                remedy="build with those, or adapt the patch in third_party/patches",
            )
        lines[at : at + len(hunk.old)] = hunk.new
        shift += len(hunk.new) - len(hunk.old)
    return "\n".join(lines)
