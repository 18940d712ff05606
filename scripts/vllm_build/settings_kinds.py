# SPDX-License-Identifier: Apache-2.0
"""How the value of an environment variable becomes a typed one: one :class:`Kind` per type."""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from packaging.version import Version

from vllm_build.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")
#: More jobs or threads than any machine has; a larger number is a slip of the finger, and CMake would not read it either.
_MOST = 1_000_000


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
        ConfigurationError: it is malformed; the message names all three: name, value, and what is accepted.
    """
    try:
        return kind.parse(text)
    except ValueError as error:
        raise ConfigurationError(f"{name}={text!r} is not valid", expected=kind.accepts, remedy=remedy) from error


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


def _path(value: str) -> Path:
    try:
        return Path(value.strip()).expanduser().absolute()
    except RuntimeError as error:  # "~" without a home, "~user" of nobody
        raise ValueError(value) from error


def _hexadecimal(shortest: int) -> Callable[[str], str]:
    def parse(value: str) -> str:
        digits = value.strip().lower()
        if not re.fullmatch(r"[0-9a-f]*", digits) or not shortest <= len(digits) <= hashlib.sha256().digest_size * 2:
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
    """CMake's names in any case. One build has one type, which is all that the multi-config form adds to."""
    return _GENERATOR.parse("Ninja" if text.strip().lower() == "ninja multi-config" else text)


TEXT: Kind[str] = Kind("any text", str.strip)
FLAG = Kind("1 or 0", _flag)
COUNT = Kind(f"a whole number from 1 to {_MOST}", _count)
RELEASE = Kind("a release such as 13.0: numbers with a dot", _release)
DRIVER = Kind("a release such as 12 or 12.9", _driver)
FOLDER = Kind("the path of a folder", _path)
FILE: Kind[Path] = Kind("the path of a file", _path)
_GENERATOR = choice("Ninja", "Unix Makefiles")
GENERATOR = Kind(f"{_GENERATOR.accepts}; Ninja Multi-Config is taken as Ninja, since one build has one type", _generator)
SHA256 = Kind("64 hexadecimal digits", _hexadecimal(64))
DIGEST = Kind("12 to 64 hexadecimal digits", _hexadecimal(12))
WORDS: Kind[tuple[str, ...]] = Kind("words separated by spaces, quoted as for a shell", lambda value: tuple(shlex.split(value)))
