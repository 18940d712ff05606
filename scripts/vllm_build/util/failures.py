# SPDX-License-Identifier: Apache-2.0
"""Turns an exception that no module handled into a message and an exit status."""

from __future__ import annotations

import errno
import os
import re
import ssl
import urllib.error
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.util.errors import (
    ConfigurationError,
    FetchError,
    InternalError,
    ResourceError,
    VllmBuildError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_EXHAUSTED = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EAGAIN,
    errno.EFBIG,
}
#: Messages of programs and libraries that ran out of a resource, memory among them.
_SAID = re.compile(
    r"[^\n]*(?:"
    + "|".join(
        rf"\(os error {number}\)|{re.escape(os.strerror(number))}" for number in sorted(_EXHAUSTED)
    )
    + (
        r"|memory allocation of [0-9]+ bytes failed|can't start new thread|failed to map "
        r"segment|\bMemoryError\b)[^\n]*"
    )
)
_BROKEN = {errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV}
#: Variables that name a file or a folder, in addition to the build's settings.
_VARIABLES = (
    "VLLM_BUILD_CACHE",
    "CCACHE_DIR",
    "XDG_CACHE_HOME",
    "TMPDIR",
    "RATTLER_CACHE_DIR",
    "HOME",
)


def _given(
    arguments: Mapping[str, object], variables: Iterable[str], environ: Mapping[str, str]
) -> Iterator[tuple[str, Path]]:
    """Every path that the user gave, with the name of its argument or variable."""
    for name, value in arguments.items():
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(item, Path):
                yield f"the argument {name}", item.absolute()
    for name in (*variables, *_VARIABLES):
        if text := environ.get(name, "").strip():
            try:
                yield name, Path(text).expanduser().absolute()
            except RuntimeError:
                continue


def _chose(name: str, given: Path, path: Path) -> bool:
    """Whether the user's ``given`` path is the reason that ``path`` is used.

    Most paths of a user lie in the home folder. HOME is the reason only for hidden folders, which
    contain caches and configuration.
    """
    if path == given:
        return True
    return given in path.parents and (
        name != "HOME" or path.relative_to(given).parts[0].startswith(".")
    )


def _source(
    path: Path,
    arguments: Mapping[str, object],
    variables: Iterable[str],
    environ: Mapping[str, str],
) -> str | None:
    """The argument or variable that led to ``path``; of several, the one with the longest path."""
    path = path.absolute()
    found = [
        (len(given.parts), name)
        for name, given in _given(arguments, variables, environ)
        if _chose(name, given, path)
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def of_os_error(
    error: OSError,
    arguments: Mapping[str, object],
    environ: Mapping[str, str],
    variables: Iterable[str] = (),
) -> VllmBuildError:
    """Turn an error of the operating system into a failure.

    Args:
        error: the error of the system.
        arguments: the arguments of the command line, by name.
        environ: the environment; the message names the variable that led to the path.
        variables: names of variables that may contain a path.
    """
    if isinstance(error, (urllib.error.URLError, ssl.SSLError, ConnectionError, TimeoutError)):
        return FetchError(
            f"a connection failed: {error}", remedy="check the network, and try again"
        )
    named = error.filename2 or error.filename
    path = Path(os.fsdecode(named)) if isinstance(named, (str, bytes, os.PathLike)) else None
    reason = error.strerror or str(error) or type(error).__name__
    source = _source(path, arguments, variables, environ) if path else None
    message = (f"{path}: " if path else "") + reason + (f" ({source} names it)" if source else "")
    if error.errno in _EXHAUSTED:
        return ResourceError(
            message,
            expected="enough disk space, memory, file handles and processes",
            remedy="free some; VLLM_BUILD_CACHE moves the cache to another disk",
        )
    if error.errno in _BROKEN or path is None:
        return ResourceError(
            f"the system refused an operation: {message}",
            remedy="read the system's log; -v shows where it happened",
        )
    expected = "a path that this user may read, or may write if the build writes there"
    return ConfigurationError(
        message,
        expected=expected,
        remedy=f"correct {source}" if source else "correct the path, or its permissions",
    )


def exhausted(said: str) -> str | None:
    """The first line of a message that reports an exhausted resource; None if there is none.

    Args:
        said: the message of a child process or a library. The resource may be the machine's or
            limited for the process.
    """
    found = _SAID.search(said)
    return found[0].strip() if found else None


def of_exception(
    error: Exception,
    arguments: Mapping[str, object],
    environ: Mapping[str, str],
    variables: Iterable[str] = (),
) -> VllmBuildError:
    """Turn any exception into a failure; the arguments are those of :func:`of_os_error`.

    An error of ours is returned as it is. Exhausted memory is a failure of the machine. Text that
    is not UTF-8 comes from a file of the user: the output of tools is decoded with replacement
    characters. Any other exception is a bug in this library, including endless recursion and names
    that cannot be encoded.
    """
    if isinstance(error, VllmBuildError):
        return error
    if isinstance(error, OSError):
        failure = of_os_error(error, arguments, environ, variables)
    elif isinstance(error, MemoryError):
        failure = ResourceError(
            "out of memory", remedy="free some memory, or set MAX_JOBS to fewer compilers"
        )
    elif isinstance(error, UnicodeDecodeError):
        failure = ConfigurationError(
            f"a file is not UTF-8 text: {error}",
            expected="text in UTF-8",
            remedy="convert the file; -v shows which one it is",
        )
    else:
        failure = InternalError(
            f"{type(error).__name__}: {error}",
            expected="an error that vllm-build handles",
            remedy="report it, with the output of -v",
        )
    failure.__cause__ = error
    return failure
