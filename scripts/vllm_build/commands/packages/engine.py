# SPDX-License-Identifier: Apache-2.0
"""``vllm-build engine``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.engine import engine_requirements, engine_source, op_schemas
from vllm_build.engine.review import REMEDIES, review
from vllm_build.toolchain import engine_lock, engine_wheels, third_party_fetch
from vllm_build.util import paths
from vllm_build.util.errors import IntegrityError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from pathlib import Path

    from vllm_build.util.console import Console

HELP = "Compare the locked engine with this tree: files, ops, requirements and licenses."
#: Steps that no comparison of texts replaces.
_BY_HAND = (
    "run make package VARIANT=cpu: it generates with the new engine, and compares the tokens",
    "run make test: tests/build/test_engine_{locked,kernels}.py name what is left",
    "read upstream's notes on the release, and write a line in CHANGELOG.md",
)
_SCHEMAS = "tests/data/upstream_gpu_schemas.txt"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--update", metavar="VERSION", help="lock this release of vllm first, from PyPI"
    )


def _steps(
    root: Path, found: dict[str, list[str]], *, before: str, after: str, unknown: list[str]
) -> list[str]:
    """What a person has to do, in order."""
    steps = [f"{subject}: {REMEDIES[subject]}" for subject, lines in found.items() if lines]
    if before == after:
        return steps
    if unknown:
        steps.append(
            f"compare {_SCHEMAS} with what the libraries of an official wheel of {after} register: "
            f"the sources do not have the schemas of {', '.join(unknown)}"
        )
    named = engine_lock.mentions(root, before)
    if named:
        steps.append(f"look for {before} in {', '.join(named)}")
    return [*steps, *_BY_HAND]


def run(arguments: Namespace, console: Console) -> int:
    """Show what is not in the tree's tables; the engine is fetched if the cache lacks it.

    Raises:
        IntegrityError: there is such a difference.
    """
    root, inherited = paths.source_root(), arguments.invocation.environ
    before = engine_lock.version(root)
    if arguments.update:
        engine_lock.update(root, arguments.update, console, inherited)
    source = engine_source.locked(root)
    third_party_fetch.fetch(source, console, inherited)
    archive = third_party_fetch.archive(source, console, inherited)
    engine = engine_source.find(root)
    found = {
        **review(root, engine, archive),
        "wheels": engine_wheels.differences(root, engine_requirements.read(root), engine),
    }
    unknown = op_schemas.unknown(op_schemas.registered(root), op_schemas.of_archive(archive))
    steps = _steps(root, found, before=before, after=engine.version, unknown=unknown)
    if console.json_mode:
        console.json(
            {
                "before": before,
                "version": engine.version,
                "sha256": engine.sha256,
                "differences": found,
                "steps": steps,
            }
        )
    for subject, lines in found.items():
        console.info(f"{subject}: {len(lines) or 'no'} difference{'' if len(lines) == 1 else 's'}")
        for line in lines:
            console.info(f"    {line}")
    if steps:
        console.info("to do:")
        for number, step in enumerate(steps, 1):
            console.info(f"    {number}. {step}")
    if any(found.values()):
        raise IntegrityError(
            f"vllm {engine.version} differs from the tables of this tree",
            expected="no differences",
            remedy="do what the list above says; `vllm-build engine` shows what is left",
        )
    return 0
