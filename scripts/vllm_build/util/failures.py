# SPDX-License-Identifier: Apache-2.0
"""What an exception that no module has translated means to the user: the last place where an error becomes a message and a status."""

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
#: What programs and libraries write when the system refuses them more, or when they cannot get
#: memory.
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
#: Variables that name a file or a folder and are no settings of the build, in addition to those
#: that are.
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
    """Every path that the user named, with what it was named by."""
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
    """Whether what was named decided that ``path`` is used.

    Most paths of a user lie in the home folder. It decides on the hidden folders alone, where
    caches and configuration are.
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
    """What named the folder that ``path`` lies in, or ``path`` itself; the closest where several did."""
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
    """The failure that the system's refusal is.

    Args:
        error: what the system said.
        arguments: of the command line, by name.
        environ: the variables of the process, to name the one that chose the path.
        variables: names of variables that may hold a path.
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
            expected="room to write",
            remedy="free some; VLLM_BUILD_CACHE chooses another place for the cache",
        )
    if error.errno in _BROKEN or path is None:
        return ResourceError(
            f"the system refused an operation: {message}",
            remedy="look at the system's log; -v shows where it happened",
        )
    expected = "a path that this user may read, and write where something is built"
    return ConfigurationError(
        message,
        expected=expected,
        remedy=f"correct {source}" if source else "correct the path, or its permissions",
    )


def exhausted(said: str) -> str | None:
    """The first line of a child's or a library's message that says what the machine, or a limit of the process, had no more of."""
    found = _SAID.search(said)
    return found[0].strip() if found else None


def of_exception(
    error: Exception,
    arguments: Mapping[str, object],
    environ: Mapping[str, str],
    variables: Iterable[str] = (),
) -> VllmBuildError:
    """The failure that ``error`` is, itself where it is one of ours; the arguments are those of :func:`of_os_error`.

    Memory that is exhausted is the machine's; text that is not UTF-8 is in a file that somebody
    gave us, as tools' output is decoded with marks. Anything else, endless recursion and names that
    cannot be encoded among it, is a mistake in this library.
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
            remedy="-v shows which file",
        )
    else:
        failure = InternalError(
            f"{type(error).__name__}: {error}",
            expected="an error of vllm-build's own",
            remedy="report it, with the output of -v",
        )
    failure.__cause__ = error
    return failure
