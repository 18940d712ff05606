# SPDX-License-Identifier: Apache-2.0
"""Passes the cause of a failure from the engine's processes to the command that started them.

The engine runs in several processes. If one fails, it logs a traceback, and the command only learns
that a process ended. Here, each process also writes the error that it logs into a file in memory,
which belongs to the command and disappears with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from typing import Any

#: Environment variable with the path of the file, for the processes that the command starts.
PLACE = "_VLLM_KERNELS_FAILURES"
#: Longer messages, such as those with a list of all models, are cut.
LIMIT = 1000
#: Bytes of the file from which on further errors are not noted.
_MOST = 1 << 16
#: Loggers of what ends an engine. Others report errors of single requests.
_LOGGERS = ("vllm.v1.engine", "vllm.v1.executor", "vllm.v1.worker")
_END = "\0"
#: Noted after the error that ended the engine.
_FATAL = "the engine ended"
#: Noted when the server is asked to stop.
_REQUESTED = "the server was asked to stop"
#: Marks of the errors of a server whose engine has ended, also if it was killed.
_ENDED = ("EngineDeadError", "EngineCore encountered an issue")


def prepare() -> None:
    """Make the file, for this process and those that it starts from now on."""
    os.environ.pop(PLACE, None)
    with contextlib.suppress(OSError):  # some sandboxes permit no such files
        number = os.memfd_create("vllm-failures")
        os.environ[PLACE] = f"/proc/{os.getpid()}/fd/{number}"


def describe(error: BaseException) -> str:
    """The first paragraph of an error's message as one line.

    The error's type comes first if the message alone does not say what happened.
    """
    listed: Any = getattr(error, "errors", None)
    if callable(listed):  # pydantic's error, whose text has links and the input
        with contextlib.suppress(Exception):
            found = [str(entry["msg"]).removeprefix("Value error, ") for entry in listed()]
            if found:
                return _line("; ".join(found))
    text = _line(str(error))
    if isinstance(error, (OSError, RuntimeError, ValueError, ImportError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _line(text: str) -> str:
    line = " ".join(text.strip().partition("\n\n")[0].split())
    return line if len(line) <= LIMIT else f"{line[:LIMIT]} …"


def note(error: BaseException) -> None:
    """Write the error of this process into the command's file, if there is one."""
    _write(describe(error), most=_MOST)


def note_end() -> None:
    """Write that the engine ended without having been asked to."""
    _write(_FATAL)


def _write(text: str, most: int | None = None) -> None:
    """Append the text, unless the file has ``most`` bytes already."""
    place = os.environ.get(PLACE)
    if place is None:
        return
    with contextlib.suppress(OSError), open(place, "ab") as file:  # noqa: PTH123 - no file to make
        if most is None or file.tell() < most:
            file.write((text + _END).encode(errors="replace"))


def note_request() -> None:
    """Write that the server is asked to stop, so that errors from now on are no failures."""
    _write(_REQUESTED)


def is_requested() -> bool:
    """Whether the server was asked to stop."""
    return _REQUESTED in _noted()


def ended() -> bool:
    """Whether the engine ended with an error after its start, before it was asked to."""
    return any(text == _FATAL or any(mark in text for mark in _ENDED) for text in _errors())


def first() -> str | None:
    """The error that a process wrote first; None if there is none.

    The others follow from it.
    """
    return next((text for text in _errors() if text != _FATAL), None)


def _errors() -> list[str]:
    noted = _noted()
    return noted[: noted.index(_REQUESTED)] if _REQUESTED in noted else noted


def _noted() -> list[str]:
    return _read().split(_END)[:-1]


def _read() -> str:
    place = os.environ.get(PLACE)
    if place is not None:
        with contextlib.suppress(OSError), open(place, "rb") as file:  # noqa: PTH123 - as above
            return file.read().decode(errors="replace")
    return ""


def watch() -> None:
    """Note the errors that the engine logs with a traceback, if the command started this process.

    The records' factory is asked, because the engine replaces the handlers of its loggers.
    """
    make = logging.getLogRecordFactory()
    if PLACE not in os.environ or getattr(make, "notes_failures", False):
        return

    def record(*arguments: Any, **named: Any) -> logging.LogRecord:
        made = make(*arguments, **named)
        if made.levelno >= logging.ERROR and made.name.startswith(_LOGGERS):
            error = made.exc_info[1] if made.exc_info else None
            if error is not None:
                note(error)
                if "fatal error" in str(made.msg):
                    note_end()
        return made

    record.notes_failures = True  # type: ignore[attr-defined] # marks the function
    logging.setLogRecordFactory(record)


def status_of(number: int) -> int:
    """The exit status of a command that a signal ended, as shells report it."""
    return 128 + signal.Signals(number)
