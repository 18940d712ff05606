# SPDX-License-Identifier: Apache-2.0
"""The command ``vllm``: the engine's own, and one clear message at its end if it fails."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import traceback
from pathlib import Path

from vllm._kernels import engine
from vllm._kernels.engine import failure

#: These commands need no kernels.
_WITHOUT_KERNELS = ("chat", "collect-env", "complete", "--version", "-v")
#: Texts of errors that follow from another one.
_CONSEQUENCES = ("root cause", "died unexpectedly", "died with exit code")
_STOPS = (signal.SIGINT, signal.SIGTERM)


def _say(message: str) -> None:
    # The streams may be closed.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"error: {message}\n")
        sys.stderr.flush()


def _asks_for_help(arguments: list[str]) -> bool:
    return any(word in {"-h", "--help"} or word.startswith("--help=") for word in arguments)


def _require_kernels(arguments: list[str]) -> None:
    """Refuse a command that computes if no kernels are installed.

    Raises:
        ImportError: there are none.
        BuildInfoError: their record is damaged.
    """
    if not arguments or arguments[0] in _WITHOUT_KERNELS or _asks_for_help(arguments):
        return
    found = engine.device()
    if found is None:
        raise ImportError(
            "vllm's kernels are not installed: conda install vllm-kernels "
            '(for the CPU: "vllm-kernels=*=cpu_*")'
        )
    if found not in engine.PLATFORMS:
        raise ImportError(
            f"vllm's kernels here are for {found}, and the engine runs on "
            f"{', '.join(engine.PLATFORMS)}: install other kernels, such as "
            '"vllm-kernels=*=cpu_*"'
        )


def _option(arguments: list[str], name: str) -> str | None:
    """The value of an option of the command line; None without it."""
    for place, word in enumerate(arguments):
        found, equals, value = word.partition("=")
        if found == name:
            return value if equals else next(iter(arguments[place + 1 :]), None)
    return None


def _model(arguments: list[str]) -> str | None:
    """The model that ``vllm serve`` is asked to serve, if the command line names one."""
    if arguments[:1] != ["serve"]:
        return None
    if len(arguments) > 1 and not arguments[1].startswith("-"):
        return arguments[1]
    return _option(arguments, "--model")


def _require_model(arguments: list[str]) -> None:
    """Refuse a model that is a path to nothing, which the engine would look for on the hub.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    model = None if _asks_for_help(arguments) else _model(arguments)
    if model and model.startswith(("/", "./", "../", "~")) and not Path(model).exists():
        raise FileNotFoundError(
            f"there is no such folder: {model}; expected the folder of a model, or the name of one "
            "on the hub, such as Qwen/Qwen3-0.6B"
        )


def _message(error: BaseException) -> str:
    """What to say about an error: its cause, if another process failed first."""
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        port = _option(sys.argv, "--port") or (None if _option(sys.argv, "--config") else "8000")
        place = _option(sys.argv, "--uds") or (f"port {port}" if port else "the server's port")
        return f"{place} is in use by another program: choose another one"
    text = failure.describe(error)
    if any(mark in text for mark in _CONSEQUENCES) or type(error).__name__ == "EngineDeadError":
        return failure.first() or text
    return text


def _stop(number: int, _frame: object) -> None:
    """End what the engine does; further signals of the kind do not disturb its end.

    The event loop leaves a handler of SIGINT alone that is not Python's. With its own, a start
    could not be interrupted.
    """
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt(signal.Signals(number).name)


def _run() -> int:
    try:
        _require_kernels(sys.argv[1:])
        _require_model(sys.argv[1:])
        if sys.argv[1:2] == ["serve"]:
            from vllm._kernels.engine import stops  # noqa: PLC0415 - it imports the engine

            stops.use()
        # It imports torch and most of the engine.
        from vllm.entrypoints.cli import main as engines  # noqa: PLC0415

        engines.main()
        # A server whose engine dies ends as if it had been asked to.
        if failure.ended():
            _say(f"the engine ended: {failure.first() or 'its process died'}")
            return 1
    except KeyboardInterrupt as stopped:
        # The engine raises this for SIGTERM, with a text of its own.
        number = signal.SIGINT if str(stopped) in {"", "SIGINT"} else signal.SIGTERM
        _say(f"stopped by {number.name}")
        return failure.status_of(number)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            _say(ended.code.removeprefix("error: "))
            return 1
        return ended.code or 0
    except Exception as error:  # noqa: BLE001 - the end of the program
        if os.environ.get("VLLM_LOGGING_LEVEL", "").upper() == "DEBUG":
            traceback.print_exc()
        _say(_message(error))
        return 1
    return 0


def main() -> int:
    """Run the engine's command.

    Returns:
        The exit status: the engine's, 1 after an error, 128 and the number of the signal if one
        ended it before it could serve, with one API server.
    """
    failure.prepare()
    before = {number: signal.signal(number, _stop) for number in _STOPS}
    try:
        return _run()
    finally:
        for number, action in before.items():
            signal.signal(number, action)
