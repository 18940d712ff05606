# SPDX-License-Identifier: Apache-2.0
"""How the value of an environment variable becomes a typed one: one :class:`Kind` per type."""

from __future__ import annotations

import errno
import hashlib
import re
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from packaging.version import Version

from vllm_build.util.errors import ConfigurationError
from vllm_build.util.files import may_write

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")
#: More jobs or threads than any machine has; a larger number is a slip of the finger, and CMake
#: would not read it either.
_MOST = 1_000_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEMES = ("http", "https", "file")
#: 1980 and 2107: the times of files in a zip file, such as a wheel.
_OLDEST, _NEWEST = 315_532_800, 4_354_819_199


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A type of values.

    Attributes:
        accepts: what a value may be, for messages and documentation.
        parse: from the text, which is not blank, to the value; raises ValueError for anything else.
    """

    accepts: str
    parse: Callable[[str], T]


def checked(name: str, kind: Kind[T], text: str, remedy: str | None = None) -> T:
    """The value of ``text``, which ``name`` (a variable, an option) was given.

    Raises:
        ConfigurationError: it is malformed; the message names all three: name, value, and what is
            accepted.
    """
    try:
        text.encode()  # bytes that are not UTF-8: nothing that a build writes could hold them
        return kind.parse(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{name}={text!r} is not valid", expected=kind.accepts, remedy=remedy
        ) from error


def _flag(value: str) -> bool:
    word = value.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(value)


def _count(value: str) -> int:
    # int() alone would take "1_000" and digits of every script.
    if re.fullmatch(r"\s*[0-9]{1,9}\s*", value) and 1 <= int(value) <= _MOST:
        return int(value)
    raise ValueError(value)


def _release(value: str) -> Version:
    if not re.fullmatch(r"\s*[1-9][0-9]{0,3}\.[0-9]{1,4}(\.[0-9]{1,6})?\s*", value):
        raise ValueError(value)
    return Version(value)


def _driver(value: str) -> Version:
    if not re.fullmatch(r"\s*[1-9][0-9]{0,3}(\.[0-9]{1,4}){0,2}\s*", value):
        raise ValueError(value)
    return Version(value)


def _text(value: str) -> str:
    if _CONTROL.search(value.strip()):
        raise ValueError(value)
    return value.strip()


def _path(value: str) -> Path:
    text = _text(value)
    if "://" in text:
        raise ValueError(value)
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:  # "~" without a home, "~user" of nobody
        raise ValueError(value) from error


def _mode(path: Path) -> int | None:
    """The mode of what stands at ``path``; None where nothing does, or where this user may not look.

    Raises:
        ValueError: nothing can stand there: a file is in the way, or the path is too long.
    """
    try:
        return path.stat().st_mode
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
            raise ValueError(str(path)) from error
        return None


def _folder(value: str) -> Path:
    path = _path(value)
    if (mode := _mode(path)) is not None and not stat.S_ISDIR(mode):
        raise ValueError(value)
    return path


def _absolute_folder(value: str) -> Path:
    if not _text(value).startswith(("/", "~")):
        raise ValueError(value)
    return _folder(value)


def _present_folder(value: str) -> Path:
    path = _folder(value)
    if not path.is_dir() or not may_write(path):
        raise ValueError(value)
    return path


def _file(value: str) -> Path:
    path = _path(value)
    if (mode := _mode(path)) is not None and not stat.S_ISREG(mode):
        raise ValueError(value)
    return path


def _location(value: str) -> str:
    """A path or an address. What is behind it is looked at where it is used."""
    text = _text(value)
    scheme, address, _ = text.partition("://")
    if address and scheme.lower() not in _SCHEMES:
        raise ValueError(value)
    return text


def _words(value: str) -> tuple[str, ...]:
    return tuple(shlex.split(value))


def _locations(value: str) -> tuple[str, ...]:
    return tuple(_location(word) for word in _words(value))


def _version(value: str) -> str:
    Version(value)  # InvalidVersion is a ValueError
    return value.strip()


def _epoch(value: str) -> int:
    if not re.fullmatch(r"\s*[0-9]{1,12}\s*", value) or not _OLDEST <= int(value) <= _NEWEST:
        raise ValueError(value)
    return int(value)


def architectures(accepts: str, check: Callable[[str], object]) -> Kind[str]:
    """A list of GPU architectures, kept as it is written.

    Args:
        accepts: what the list may hold.
        check: raises ConfigurationError for a malformed list, with the entry that was meant.
    """

    def parse(text: str) -> str:
        check(text)
        return text.strip()

    return Kind(accepts, parse)


def words_of(*known: str) -> Kind[tuple[str, ...]]:
    """Words, each one of ``known``."""

    def parse(text: str) -> tuple[str, ...]:
        found = _words(text)
        if not set(found) <= set(known):
            raise ValueError(text)
        return found

    return Kind("one or more of " + ", ".join(known), parse)


def _hexadecimal(shortest: int) -> Callable[[str], str]:
    def parse(value: str) -> str:
        digits = value.strip().lower()
        if (
            not re.fullmatch(r"[0-9a-f]*", digits)
            or not shortest <= len(digits) <= hashlib.sha256().digest_size * 2
        ):
            raise ValueError(value)
        return digits

    return parse


def choice(*values: str) -> Kind[str]:
    """One of ``values``, in any case; the value is spelled as here."""
    spelled = {value.lower(): value for value in values}

    def parse(text: str) -> str:
        try:
            return spelled[text.strip().lower()]
        except KeyError as error:
            raise ValueError(text) from error

    return Kind("one of " + ", ".join(values), parse)


def _generator(text: str) -> str:
    """CMake's names in any case.

    One build has one type, which is all that the multi-config form adds to.
    """
    return _GENERATOR.parse("Ninja" if text.strip().lower() == "ninja multi-config" else text)


TEXT: Kind[str] = Kind("any text of one line", _text)
SEARCH_PATH: Kind[str] = Kind("folders with colons between them, in UTF-8", str.strip)
VERSION: Kind[str] = Kind("a version as PEP 440 defines it, such as 0.1.0", _version)
EPOCH = Kind(f"seconds since 1970, {_OLDEST} to {_NEWEST}: what a zip file can hold", _epoch)
LOCATION: Kind[str] = Kind("a path, or an address with https, http or file", _location)
LOCATIONS: Kind[tuple[str, ...]] = Kind(
    "paths, and addresses with https, http or file, separated by spaces, quoted as for a shell",
    _locations,
)
FLAG = Kind("1 or 0", _flag)
COUNT = Kind(f"a whole number from 1 to {_MOST}", _count)
RELEASE = Kind("a release such as 13.0: numbers with a dot", _release)
DRIVER = Kind("a release such as 12 or 12.9", _driver)
FOLDER: Kind[Path] = Kind("the path of a folder", _folder)
#: For programs that the build can do without: a folder that cannot be used costs a warning there.
OPTIONAL_FOLDER: Kind[Path] = Kind("the path of a folder", _path)
ABSOLUTE_FOLDER: Kind[Path] = Kind(
    "the absolute path of a folder: other programs ignore a relative one", _absolute_folder
)
PRESENT_FOLDER: Kind[Path] = Kind(
    "the path of a folder that exists and can be written to", _present_folder
)
FILE: Kind[Path] = Kind("the path of a file, not of a device or a folder", _file)
_GENERATOR = choice("Ninja", "Unix Makefiles")
GENERATOR = Kind(
    f"{_GENERATOR.accepts}; Ninja Multi-Config is taken as Ninja, since one build has one type",
    _generator,
)
SHA256 = Kind("64 hexadecimal digits", _hexadecimal(64))
DIGEST = Kind("12 to 64 hexadecimal digits", _hexadecimal(12))
WORDS: Kind[tuple[str, ...]] = Kind("words separated by spaces, quoted as for a shell", _words)
