# SPDX-License-Identifier: Apache-2.0
"""The version of the program that packs.

Packages of another version than the pinned one carry another name.
"""

from __future__ import annotations

import hashlib
import importlib.metadata

from vllm_build.digests import tree_digests
from vllm_build.packing import recipe_builder
from vllm_build.util.errors import ToolchainError
from vllm_build.util.processes import children
from vllm_build.util.redaction import excerpt


def version_of(program: str) -> str:
    """What ``rattler-build --version`` says, such as ``0.73.0``.

    Raises:
        ToolchainError: the program does not run, or says no version.
    """
    try:
        done = children.run([program, "--version"])
    except OSError as error:
        raise ToolchainError(
            f"{program} cannot be started: {error.strerror}",
            expected="rattler-build, or none on PATH",
        ) from error
    words = done.stdout.split()
    if done.returncode or not words:
        raise ToolchainError(
            f"{program} --version failed (exit status {done.returncode}): "
            f"{excerpt((done.stderr or done.stdout).strip(), 300, end=True)}",
            expected="its version, which is part of the packages' names",
            remedy="repair it, or take it off PATH: the pinned bindings are used then",
        )
    return words[-1]


def recipe_digest(of_tree: str) -> str:
    """The recipe digest of packages that are packed on this machine.

    Args:
        of_tree: the tree's recipe digest, which covers the pinned version of rattler-build.

    Returns:
        ``of_tree`` with the pinned version, else a digest of the same length over it and the other
        version.

    Raises:
        ToolchainError: as ``version_of``.
    """
    program = recipe_builder.find_program()
    if program is None or (version := version_of(program)) == importlib.metadata.version(
        "py-rattler-build"
    ):
        return of_tree
    return tree_digests.of_entries(
        {"recipe": of_tree, "rattler-build": hashlib.sha256(version.encode()).hexdigest()}
    )[: len(of_tree)]
