# SPDX-License-Identifier: Apache-2.0
"""Where the ``vllm-build`` command begins: an isolated interpreter and signals in order, before anything else is imported."""

from __future__ import annotations

import json
import os
import sys

from vllm_build import signals


def _isolate(argv: list[str]) -> None:
    """Replace this process by one that reads none of the user's PYTHON… variables, for ``python -m vllm_build``.

    ``vllm-build`` itself is isolated from its first instruction (``scripts/bin/vllm-build``). Here the interpreter has started, so this
    library was found; what it imports would still come from ``PYTHONPATH`` or the current folder.
    """
    if sys.flags.isolated or not sys.executable:
        return
    from vllm_build import children  # noqa: PLC0415 -- signals first

    command = children.module("vllm_build", *argv)
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606 - an argument list


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    words = sys.argv[1:] if argv is None else argv
    try:
        signals.install()
        _isolate(words)
        # Half a second of imports. An exception inside of a C module's initialisation comes out as another one.
        with signals.deferred():
            from vllm_build import cli  # noqa: PLC0415 -- signals first
    except signals.Interrupted as interrupt:
        from vllm_build.redaction import say  # noqa: PLC0415 -- signals first

        say(f"error: {interrupt}\n")
        if "--json" in words:
            sys.stdout.write(json.dumps(interrupt.document(), indent=2) + "\n")
        return interrupt.status
    try:
        return cli.main(argv)
    finally:
        signals.ignore()
