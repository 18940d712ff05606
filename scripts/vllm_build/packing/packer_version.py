# SPDX-License-Identifier: Apache-2.0
"""The version of rattler-build that makes packages.

If it is not the pinned version, the packages get another name.
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
    """Return the version that ``rattler-build --version`` prints, such as ``0.73.0``.

    Raises:
        ToolchainError: the program does not start, fails, or prints no version.
    """
    try:
        done = children.run([program, "--version"])
    except OSError as error:
        raise ToolchainError(
            f"{program} cannot be started: {error.strerror}",
            expected="a working rattler-build on PATH, or none",
        ) from error
    words = done.stdout.split()
    if done.returncode or not words:
        raise ToolchainError(
            f"{program} --version failed (exit status {done.returncode}): "
            f"{excerpt((done.stderr or done.stdout).strip(), 300, end=True)}",
            expected="its version, which affects the packages' names",
            remedy="repair it, or remove it from PATH: the pinned bindings are used then",
        )
    return words[-1]


def recipe_digest(of_tree: str) -> str:
    """Return the recipe digest of packages that this machine makes.

    Args:
        of_tree: the tree's recipe digest, which covers the pinned version of rattler-build.

    Returns:
        ``of_tree`` if this machine has the pinned version. Otherwise a digest of the same length
        over ``of_tree`` and the machine's version.

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
