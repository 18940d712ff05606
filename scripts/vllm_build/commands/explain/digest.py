# SPDX-License-Identifier: Apache-2.0
"""``vllm-build digest``."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.digests import digest_rules, kernel_inputs, tree_digests
from vllm_build.util import paths
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.processes import children

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.util.console import Console

HELP = "Show the digests of the tree: what shapes each output, and how packages are packed."
#: Begins the name of a digest of how a conda package is packed, such as ``recipe/vllm-kernels``.
RECIPE = "recipe/"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--output", help="one output, such as vllm-kernels; default: all")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--explain", action="store_true", help="list the inputs of each digest with their sha256"
    )
    how.add_argument(
        "--diff",
        metavar="REV",
        help="list the inputs that differ from those of a git revision",
    )


def _inputs(root: Path, output: str) -> dict[str, str]:
    if output.startswith(RECIPE):
        return tree_digests.recipe_inputs(root, output.removeprefix(RECIPE))
    if output == "vllm":
        return tree_digests.package_inputs(root)
    return kernel_inputs.of(root, output)


def _extract(root: Path, revision: str, into: Path) -> None:
    """Write the tree of a git revision into a folder.

    Raises:
        ConfigurationError: the tree is not a git checkout, git is missing, or the revision is
            unknown.
    """
    try:
        done = children.run_for_bytes(["git", "archive", "--end-of-options", revision], cwd=root)
    except OSError as error:
        raise ConfigurationError(
            "git cannot be run", expected="git, to read another revision", remedy="install git"
        ) from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise ConfigurationError(
            f"--diff {revision}: {said}", expected="a revision of this repository"
        )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(into, filter="data")
        else:  # Python before 3.11.4; git wrote the archive
            archive.extractall(into)  # noqa: S202 - as above


def differences(mine: dict[str, str], theirs: dict[str, str]) -> list[tuple[str, str]]:
    """Entries that differ, and how: ``changed``, ``new`` (only mine) or ``gone`` (only theirs)."""
    differing = sorted(name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name))
    return [
        (name, "new" if name not in theirs else "gone" if name not in mine else "changed")
        for name in differing
    ]


def run(arguments: Namespace, console: Console) -> int:
    """Show digests, their inputs, or the differences from another revision."""
    root = paths.source_root()
    recipes = (RECIPE + package for package in digest_rules.conda_packages(root))
    known = (*kernel_inputs.components(root), "vllm", *recipes)
    if arguments.output is not None and arguments.output not in known:
        raise ConfigurationError(
            f"--output {arguments.output!r} is not known", expected="one of " + ", ".join(known)
        )
    outputs = known if arguments.output is None else (arguments.output,)
    inputs = {output: _inputs(root, output) for output in outputs}
    document: dict[str, object] = {
        output: {"digest": tree_digests.of_entries(entries)} for output, entries in inputs.items()
    }
    if arguments.explain:
        for output, entries in inputs.items():
            console.table(
                f"{output}: {tree_digests.of_entries(entries)}",
                ["input", "sha256"],
                [[n, v[:16]] for n, v in sorted(entries.items())],
            )
        document = {
            output: {"digest": tree_digests.of_entries(entries), "inputs": entries}
            for output, entries in inputs.items()
        }
    elif arguments.diff is not None:
        with tempfile.TemporaryDirectory() as folder:
            _extract(root, arguments.diff, Path(folder))
            for output, entries in inputs.items():
                before = _inputs(Path(folder), output)
                changed = differences(entries, before)
                old, new = (
                    tree_digests.of_entries(found)[: tree_digests.SHORT]
                    for found in (before, entries)
                )
                title = f"{output}: {old} -> {new}"
                console.table(
                    title, ["input", "what"], [list(row) for row in changed] or [["-", "the same"]]
                )
                document[output] = {
                    "digest": tree_digests.of_entries(entries),
                    "was": tree_digests.of_entries(before),
                    "differences": dict(changed),
                }
    else:
        console.table(
            "digests",
            ["output", "digest", "inputs"],
            [[o, tree_digests.of_entries(e), str(len(e))] for o, e in inputs.items()],
        )
    if console.json_mode:
        console.json(document)
    return 0
