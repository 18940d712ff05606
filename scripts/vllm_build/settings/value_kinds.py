# SPDX-License-Identifier: Apache-2.0
"""Converts the texts of environment variables to typed values, with a :class:`Kind` per type."""

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
#: More jobs or threads than any machine can run. A larger number is a typing error, and CMake
#: would not accept it either.
_MOST = 1_000_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEMES = ("http", "https", "file")
#: The years 1980 and 2107: the range of file times in a zip file, such as a wheel.
_OLDEST, _NEWEST = 315_532_800, 4_354_819_199


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A type of values.

    Attributes:
        accepts: a description of the accepted values, for messages and documentation.
        parse: converts a text that is not blank to a value; raises ValueError if it is malformed.
    """

    accepts: str
    parse: Callable[[str], T]


def checked(name: str, kind: Kind[T], text: str, remedy: str | None = None) -> T:
    """Convert ``text``, the value of the variable or option ``name``.

    Raises:
        ConfigurationError: it is malformed; the message has the name, the value and the accepted
            values.
    """
    try:
        text.encode()  # refuses bytes that are not UTF-8, which no output of a build could contain
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
    # int() alone would accept "1_000" and the digits of every script.
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
    except RuntimeError as error:  # "~" without a home folder, "~user" for an unknown user
        raise ValueError(value) from error


def _mode(path: Path) -> int | None:
    """The mode of the file at ``path``; None if there is none or this user may not see it.

    Raises:
        ValueError: no file can have this path: a parent is a file, or the path is too long.
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
    """Parse a path or an address, without opening it."""
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
    """The kind of a list of GPU architectures, whose text is kept as it is.

    Args:
        accepts: a description of the list.
        check: raises ConfigurationError for a malformed list; the error suggests a correction.
    """

    def parse(text: str) -> str:
        check(text)
        return text.strip()

    return Kind(accepts, parse)


def words_of(*known: str) -> Kind[tuple[str, ...]]:
    """The kind of a list of words from ``known``."""

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
    """The kind of one of ``values``, in any case; the result is spelled as in ``values``."""
    spelled = {value.lower(): value for value in values}

    def parse(text: str) -> str:
        try:
            return spelled[text.strip().lower()]
        except KeyError as error:
            raise ValueError(text) from error

    return Kind("one of " + ", ".join(values), parse)


def _generator(text: str) -> str:
    """Parse CMake's name of a generator, in upper or lower case.

    Multi-config Ninja becomes plain Ninja: it only adds build types, and a build has one type.
    """
    return _GENERATOR.parse("Ninja" if text.strip().lower() == "ninja multi-config" else text)


TEXT: Kind[str] = Kind("one line of text", _text)
SEARCH_PATH: Kind[str] = Kind("folders separated by colons, in UTF-8", str.strip)
VERSION: Kind[str] = Kind("a version as PEP 440 defines it, such as 0.1.0", _version)
EPOCH = Kind(
    f"seconds since 1970, {_OLDEST} to {_NEWEST}, which is the range of a zip file", _epoch
)
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
#: For programs that the build does not need: if the folder is unusable, the build warns.
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
    f"{_GENERATOR.accepts}; Ninja Multi-Config means Ninja, since a build has one type",
    _generator,
)
SHA256 = Kind("64 hexadecimal digits", _hexadecimal(64))
DIGEST = Kind("12 to 64 hexadecimal digits", _hexadecimal(12))
WORDS: Kind[tuple[str, ...]] = Kind("words separated by spaces, quoted as for a shell", _words)
