# SPDX-License-Identifier: Apache-2.0
"""Runs CMake and Ninja: shows progress, logs the whole output, and reports the first error."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from vllm_build.util.errors import BuildError, ResourceError, ToolchainError
from vllm_build.util.files import disk_errors
from vllm_build.util.processes import children, signals
from vllm_build.util.redaction import redact, say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

#: "[3/9] Building …" of Ninja, "[ 33%] Building …" of make.
_PROGRESS = re.compile(r"^\[ *[0-9]+(/[0-9]+|%)\]")
_FAILED = re.compile(r"^FAILED: ")
_ERROR = re.compile(
    r"\b(fatal )?error\b ?:|undefined reference to|CMake Error|: not found$|multiple definition of",
    re.IGNORECASE,
)
_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_OUT_OF_MEMORY = re.compile(
    r"Killed signal terminated program|virtual memory exhausted|out of memory "
    r"allocating|std::bad_alloc"
)
_CONTEXT_LINES, _TAIL_LINES = 12, 20
#: A disk with fewer free bytes counts as full: a file system may reserve the last blocks.
_ROOM = 65536


def first_error(output: str) -> str:
    """The part of a build's output that explains its failure.

    This is the first error of the first unit that failed, with the lines after it. If Ninja or make
    report no failed unit, as in a configure step, it is the first error. Without any error it is
    the end of the output.
    """
    lines = output.splitlines()
    failed = next((i for i, line in enumerate(lines) if _FAILED.match(line)), None)
    for i in range(failed + 1 if failed is not None else 0, len(lines)):
        # The line after FAILED: is the unit's command line, which may contain -Werror.
        if not _ERROR.search(lines[i]) or (
            failed is not None and i == failed + 1 and not re.match(r"\S+:[0-9]+", lines[i])
        ):
            continue
        end = next(
            (
                j
                for j in range(i + 1, len(lines))
                if _PROGRESS.match(lines[j]) or _FAILED.match(lines[j])
            ),
            len(lines),
        )
        return "\n".join(
            [
                *(lines[failed : failed + 1] if failed is not None else []),
                *lines[i : min(end, i + _CONTEXT_LINES)],
            ]
        )
    return "\n".join(lines[-_TAIL_LINES:])


def _no_room(folder: Path) -> bool:
    """Whether the disk is full. CMake, for example, succeeds even if it cannot write its files."""
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_frsize < _ROOM


def _failure(what: str, status: int, output: str, log: Path) -> BuildError | ResourceError:
    excerpt = f"{what} failed (exit status {status})\n{first_error(output)}"
    if _FULL.search(output) or _no_room(log.parent):
        excerpt += f"\nno space left on the disk of {log.parent}"
        return ResourceError(
            excerpt,
            expected="space for the object files",
            remedy="free some space; VLLM_BUILD_ROOT chooses another disk",
        )
    if _OUT_OF_MEMORY.search(output):
        return BuildError(
            excerpt,
            expected="memory for all compilers that run at once",
            remedy="reduce MAX_JOBS",
        )
    return BuildError(
        excerpt, remedy=f"read the whole output in {log}; VERBOSE=1 shows every command"
    )


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    what: str,
    log: Path,
    verbose: bool,
    annotate: Callable[[str], str] = str,
) -> str:
    """Run ``command``; returns its output, which is also written to ``log``.

    If this process is asked to end, or is killed, the command and all its children end too.
    Otherwise compilers would write into a folder that the next build uses.

    ``annotate`` changes the lines that are shown, and not those in ``log``.

    Raises:
        BuildError: its exit status is not 0, or it was killed because memory ran out.
        ResourceError: the disk is full.
        ToolchainError: the program cannot be started.
    """
    if verbose:
        say("+ " + " ".join(command) + "\n")
    lines: list[str] = []
    with disk_errors(log.parent), signals.ending(what), log.open("w", encoding="utf-8") as record:
        record.write(redact("+ " + " ".join(command)) + "\n")
        try:
            child = children.Child(
                command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        except OSError as error:
            raise ToolchainError(
                f"{command[0]} cannot be started: {error.strerror}",
                expected="a program that runs on this machine",
            ) from error
        with child:
            for unredacted in child.stdout or ():
                line = redact(unredacted)
                lines.append(line)
                record.write(line)
                if verbose or _PROGRESS.match(line) or line.startswith("--"):
                    sys.stderr.write(annotate(line))
                    sys.stderr.flush()
    output = "".join(lines)
    if child.returncode:
        raise _failure(what, child.returncode, output, log)
    return output
