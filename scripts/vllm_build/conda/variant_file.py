# SPDX-License-Identifier: Apache-2.0
"""Reads a variant file: the keys with their lines, and the values as they are written.

YAML turns an unquoted ``3.10`` into the number 3.1, which loses the version. This module therefore
reads the nodes of the document and not the values.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

_EXPECTED = "a mapping of keys to lists of one quoted value, in UTF-8"
_STRING = "tag:yaml.org,2002:str"
#: Bytes. A variant file has a few kilobytes.
_LARGEST = 1 << 20
_OTHER_ENCODINGS = {
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}


@dataclass(frozen=True)
class Scalar:
    """A value as it is written, and its YAML type, such as ``str``, ``float`` or ``null``."""

    text: str
    kind: str


@dataclass(frozen=True)
class Entry:
    """A key's value.

    Attributes:
        line: the line of the key.
        values: the items of a list of scalars; None for anything else, such as a mapping.
        written: the kind of the value, for messages.
    """

    line: int
    values: tuple[Scalar, ...] | None
    written: str


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}", expected=_EXPECTED
        ) from error
    if len(data) > _LARGEST:
        raise ConfigurationError(f"{path} has more than {_LARGEST} bytes", expected=_EXPECTED)
    for name, marks in _OTHER_ENCODINGS.items():
        if data.startswith(marks):
            raise ConfigurationError(
                f"{path} is {name}", expected=_EXPECTED, remedy="save it as UTF-8"
            )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"{path}:{line} is not UTF-8: byte 0x{data[error.start]:02x}",
            expected=_EXPECTED,
            remedy="save it as UTF-8",
        ) from error


def _root(path: Path) -> Node | None:
    try:
        return YAML(typ="safe", pure=True).compose(_text(path))  # type: ignore[no-any-return]
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigurationError(
            f"{where} is not YAML: {error.problem or error.context}", expected=_EXPECTED
        ) from error
    except (YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigurationError(f"{path} is not YAML: {reason}", expected=_EXPECTED) from error


def _scalar(node: ScalarNode) -> Scalar:
    return Scalar(
        str(node.value), "str" if node.tag == _STRING else str(node.tag).rpartition(":")[2]
    )


def _entry(line: int, node: Node) -> Entry:
    if isinstance(node, SequenceNode) and all(isinstance(item, ScalarNode) for item in node.value):
        return Entry(line, tuple(_scalar(item) for item in node.value), "a list")
    if isinstance(node, ScalarNode):
        return Entry(line, None, f"{node.value!r}, which is not in a list")
    return Entry(line, None, "a mapping" if isinstance(node, MappingNode) else "a list of lists")


def read(path: Path) -> dict[str, Entry]:
    """Read the keys of a variant file and their values.

    Raises:
        ConfigurationError: the file cannot be read, is not UTF-8, is not a YAML mapping, or has a
            key twice.
    """
    root = _root(path)
    if not isinstance(root, MappingNode) or not root.value:
        raise ConfigurationError(f"{path} has no keys", expected=_EXPECTED)
    found: dict[str, Entry] = {}
    for key, value in root.value:
        line = key.start_mark.line + 1
        if not isinstance(key, ScalarNode):
            raise ConfigurationError(
                f"{path}:{line} has a key that is not a word", expected=_EXPECTED
            )
        name = str(key.value)
        if name in found:
            raise ConfigurationError(
                f"{path}:{line} repeats the key {name} of line {found[name].line}",
                expected="each key once",
            )
        found[name] = _entry(line, value)
    return found
