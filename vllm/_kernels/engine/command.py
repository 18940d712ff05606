# SPDX-License-Identifier: Apache-2.0
"""The command ``vllm``: the engine's own, and one clear message at its end if it fails."""

from __future__ import annotations

import os
import signal
import sys
import traceback

from vllm._kernels import engine
from vllm._kernels.engine import failure

#: These commands need no kernels.
_WITHOUT_KERNELS = ("collect-env", "--help", "-h", "--version", "-v")


def _say(message: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"error: {message}\n")
    sys.stderr.flush()


def _require_kernels(arguments: list[str]) -> None:
    """Refuse a command that computes if no kernels are installed.

    Raises:
        ImportError: there are none.
        BuildInfoError: their record is damaged.
    """
    if not arguments or arguments[0] in _WITHOUT_KERNELS:
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


def _message(error: BaseException) -> str:
    """What to say about an error: its cause, if another process failed first."""
    text = failure.describe(error)
    if "root cause" in text or type(error).__name__ == "EngineDeadError":
        return failure.first() or text
    return text


def main() -> int:
    """Run the engine's command.

    Returns:
        The exit status: the engine's, 1 after an error, 128 and the number of the signal if one
        ended it before it could serve.
    """
    failure.prepare()
    try:
        _require_kernels(sys.argv[1:])
        # It imports torch and most of the engine.
        from vllm.entrypoints.cli import main as engines  # noqa: PLC0415

        engines.main()
    except KeyboardInterrupt as stopped:
        # The engine raises this with a text for SIGTERM.
        number = signal.SIGTERM if str(stopped) else signal.SIGINT
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
