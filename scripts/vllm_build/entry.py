# SPDX-License-Identifier: Apache-2.0
"""The entry point of the ``vllm-build`` command.

It prepares streams, an isolated interpreter, signals and the current folder before it imports
anything else.
"""

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
    """Replace this process by an isolated interpreter, for ``python -m vllm_build``.

    ``vllm-build`` is isolated from its first instruction (``scripts/bin/vllm-build``). With
    ``python -m`` the interpreter has found this library already, but further imports would still
    search ``PYTHONPATH`` and the current folder.
    """
    if sys.flags.isolated or not sys.executable:
        return
    from vllm_build.util.processes import children  # noqa: PLC0415 -- not needed where the interpreter is isolated

    command = children.module("vllm_build", *argv)
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606 - an argument list


def _require_folder() -> None:
    """Refuse to run if the current folder was removed.

    Some libraries ask for it when they are imported, and relative paths have no meaning without it.

    Raises:
        ConfigurationError: the folder was removed, or cannot be reached.
    """
    try:
        os.getcwd()  # noqa: PTH109 - pathlib would do the same
    except OSError as error:
        raise ConfigurationError(
            f"the current folder cannot be used: {error.strerror}",
            expected="a current folder that exists",
            remedy="change to a folder that exists, and run the command again",
        ) from error


def _end(message: str, document: dict[str, Any], words: list[str]) -> int:
    """Report why the command did not start; returns the exit status."""
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
        # A signal's exception during the initialisation of a C module would turn into another
        # exception.
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
