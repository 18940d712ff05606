# SPDX-License-Identifier: Apache-2.0
"""Where the ``vllm-build`` command begins: streams, an isolated interpreter, signals and a folder, before anything else is imported."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

from vllm_build.util import streams
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.processes import signals
from vllm_build.util.redaction import say


def _isolate(argv: list[str]) -> None:
    """Replace this process by one that reads none of the user's PYTHON… variables, for ``python -m vllm_build``.

    ``vllm-build`` itself is isolated from its first instruction (``scripts/bin/vllm-build``). Here
    the interpreter has started, so this library was found; what it imports would still come from
    ``PYTHONPATH`` or the current folder.
    """
    if sys.flags.isolated or not sys.executable:
        return
    from vllm_build.util.processes import children  # noqa: PLC0415 -- not needed where the interpreter is isolated

    command = children.module("vllm_build", *argv)
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606 - an argument list


def _require_folder() -> None:
    """Refuse a current folder that is gone: libraries ask for it when they are imported, and relative paths mean nothing there.

    Raises:
        ConfigurationError: it is gone, or cannot be reached.
    """
    try:
        os.getcwd()  # noqa: PTH109 - pathlib would do the same
    except OSError as error:
        raise ConfigurationError(
            f"the current folder cannot be used: {error.strerror}",
            expected="a current folder that exists",
            remedy="change to a folder that exists, and start the command again",
        ) from error


def _end(message: str, document: dict[str, Any], words: list[str]) -> int:
    """Say why nothing was done; returns the exit status."""
    for stream, text in (
        (sys.stderr, f"error: {message}\n"),
        (sys.stdout, json.dumps(document, indent=2) + "\n"),
    ):
        with contextlib.suppress(OSError):
            if stream is sys.stderr:
                say(text)
            elif "--json" in words:
                stream.write(text)
            stream.flush()
    streams.discard()
    return int(document["exit_code"])


def _run(argv: list[str] | None, words: list[str]) -> int:
    try:
        signals.install()
        # Half a second of imports. An exception inside of a C module's initialisation comes out as
        # another one.
        with signals.deferred():
            _require_folder()
            from vllm_build import cli  # noqa: PLC0415 -- signals first
    except signals.Interrupted as interrupt:
        return _end(str(interrupt), interrupt.document(), words)
    except ConfigurationError as failure:
        return _end(str(failure), failure.document(), words)
    return cli.main(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    words = sys.argv[1:] if argv is None else argv
    streams.open_missing()
    _isolate(words)
    try:
        return _run(argv, words)
    finally:
        signals.ignore()
