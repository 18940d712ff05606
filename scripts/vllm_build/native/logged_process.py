# SPDX-License-Identifier: Apache-2.0
"""Runs CMake and Ninja: progress is passed on, the whole output kept in a log, and a failure shown by the one error that matters."""

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
    from collections.abc import Mapping, Sequence
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
#: Bytes below which a disk is full: a file system may keep the last blocks to itself.
_ROOM = 65536


def first_error(output: str) -> str:
    """The part of a build's output that explains its failure: the first error of the first unit that failed, with what follows it.

    Without a unit that Ninja or make names as failed (a configure step), the first error of all;
    without any error, the last lines.
    """
    lines = output.splitlines()
    failed = next((i for i, line in enumerate(lines) if _FAILED.match(line)), None)
    for i in range(failed + 1 if failed is not None else 0, len(lines)):
        # The command line of the unit follows FAILED: and may hold anything, -Werror among it.
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
    """Whether nothing more can be written there; CMake, for one, ends well without having written its files."""
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_frsize < _ROOM


def _failure(what: str, status: int, output: str, log: Path) -> BuildError | ResourceError:
    excerpt = f"{what} failed (exit status {status})\n{first_error(output)}"
    if _FULL.search(output) or _no_room(log.parent):
        excerpt += f"\nno space left on the disk of {log.parent}"
        return ResourceError(
            excerpt,
            expected="room for the objects",
            remedy="free some space; VLLM_BUILD_ROOT chooses another disk",
        )
    if _OUT_OF_MEMORY.search(output):
        return BuildError(
            excerpt,
            expected="memory for every compiler that runs",
            remedy="set MAX_JOBS to less than it was",
        )
    return BuildError(
        excerpt, remedy=f"the whole output is in {log}; VERBOSE=1 shows every command"
    )


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    what: str,
    log: Path,
    verbose: bool,
) -> str:
    """Run ``command``; returns its output, which is in ``log`` as well.

    The command is ended with everything it started when this process is asked to end, or is killed:
    what goes on compiling would write into a folder that the next build uses.

    Raises:
        BuildError: it exited with another status than 0, or was killed for memory.
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
                    sys.stderr.write(line)
                    sys.stderr.flush()
    output = "".join(lines)
    if child.returncode:
        raise _failure(what, child.returncode, output, log)
    return output
