# SPDX-License-Identifier: Apache-2.0
"""``vllm-build store``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.stores import signer_keys, store_check
from vllm_build.util.errors import IntegrityError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vllm_build.util.console import Console

HELP = "Verify a whole store of built kernels."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "action", choices=("check",), help="check: every document, file, sha256 and signature"
    )
    parser.add_argument("store", type=Path, metavar="FOLDER", help="the store")
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="the signer's public key (PEM); default: the key that the store declares",
    )


def run(arguments: Namespace, console: Console) -> int:
    """Verify the store.

    Raises:
        IntegrityError: something in the store is damaged.
    """
    key = signer_keys.load_public(arguments.key, "--key") if arguments.key else None
    report = store_check.check(arguments.store.absolute(), Context(), key)
    if console.json_mode:
        console.json(vars(report))
    for path in report.unused:
        console.warn(f"nothing refers to {path}")
    for problem in report.problems:
        console.error(problem)
    console.info(f"{report.digests} digests, {report.files} files, {report.size / 1e6:.1f} MB")
    if report.signer:
        whose = (
            "which --key names"
            if key
            else "which the store declares itself; --key FILE compares it with a key that you trust"
        )
        console.info(f"signed by the key {report.signer}, {whose}")
    if report.problems:
        raise IntegrityError(
            f"{arguments.store}: {len(report.problems)} problems",
            expected="an undamaged store",
            remedy="remove the damaged entries and publish them again",
        )
    return 0
