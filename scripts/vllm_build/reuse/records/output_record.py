# SPDX-License-Identifier: Apache-2.0
"""The record of one built output, ``vllm/_build_info/<output>.json``, parsed as untrusted input."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Protocol

from packaging.version import InvalidVersion, Version

from vllm_build.project.build_info import SCHEMA
from vllm_build.reuse.records import bounds, member_names
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util.redaction import excerpt

SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Library:
    """A library: its path relative to the folder that holds ``vllm``, sha256 and size in bytes."""

    file: str
    sha256: str
    size: int


class Listed(Protocol):
    """Libraries that are requested together, under the name of an output."""

    @property
    def output(self) -> str:
        """The output's name."""

    @property
    def libraries(self) -> tuple[Library, ...]:
        """Its files."""


@dataclass(frozen=True)
class Record:
    """The facts about one output.

    Attributes:
        output: its name.
        digest: the build digest, 64 hexadecimal digits.
        device: the device it was built for.
        toolkit: release of the device's toolkit; None for devices without one.
        platform: as ``sysconfig.get_platform()`` names it.
        python_abi: ``abi3``, or an interpreter's SOABI.
        torch: the lowest supported torch release.
        libraries: its files.
        text: the bytes of the record.
        private: flags and sources that are not the tree's own; empty unless the build is private.
        tree_digest: the build digest without the flags and sources in ``private``.
    """

    output: str
    digest: str
    device: str
    toolkit: Version | None
    platform: str
    python_abi: str
    torch: Version
    libraries: tuple[Library, ...]
    text: bytes = field(repr=False)
    private: tuple[str, ...] = ()
    tree_digest: str = ""


def load_json(data: bytes, where: str, what: str) -> dict[str, Any]:
    """Parse an untrusted JSON object.

    Raises:
        RefusedError: ``data`` is not a JSON object, or is too large.
    """
    bounds.check_size(len(data), bounds.REPODATA, where, what)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RefusedError(
            "document", where, f"{what} is not JSON: {error}", expected="one JSON object"
        ) from error
    if not isinstance(document, dict):
        raise RefusedError(
            "document", where, f"{what} is not an object", expected="one JSON object"
        )
    return document


# util/record_reader.py does not fit. It reads TOML files of the tree, names their lines, and raises
# ConfigurationError. An untrusted document is JSON, often without a file or lines. Every mistake in
# it must be a RefusedError, which callers handle by its check; values must be excerpted before they
# reach a message; sizes and counts need an upper bound; and unknown keys must pass, because a later
# tree may add some.
class Reader:
    """Typed access to an untrusted JSON document; a missing or malformed value is refused."""

    def __init__(self, document: Any, where: str, what: str) -> None:
        if not isinstance(document, dict):
            raise RefusedError("document", where, f"{what} is not an object", expected="an object")
        self.document, self.where, self.what = document, where, what

    def fail(self, key: str, expected: str) -> RefusedError:
        """The error for a missing or malformed value."""
        return RefusedError(
            "document",
            self.where,
            f"{self.what}: {key} is {excerpt(str(self.document.get(key)), 80)!r}",
            expected=expected,
        )

    def text(self, key: str) -> str:
        """A non-empty string."""
        value = self.document.get(key)
        if not isinstance(value, str) or not value:
            raise self.fail(key, "a non-empty string")
        return value

    def sha256(self, key: str) -> str:
        """64 lower-case hexadecimal digits."""
        value = self.text(key)
        if not SHA256.fullmatch(value):
            raise self.fail(key, "64 lower-case hexadecimal digits")
        return value

    def size(self, key: str, limit: int) -> int:
        """A number of bytes, at most ``limit``."""
        value = self.document.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.fail(key, "a number of bytes")
        bounds.check_size(value, limit, self.where, self.what)
        return value

    def version(self, key: str) -> Version:
        """A version (PEP 440)."""
        try:
            return Version(self.text(key))
        except InvalidVersion as error:
            raise self.fail(key, "a version") from error

    def items(self, key: str, limit: int) -> list[Any]:
        """A list with at most ``limit`` items."""
        value = self.document.get(key)
        if not isinstance(value, list) or len(value) > limit:
            raise self.fail(key, f"a list of at most {limit} items")
        return value


def _library(entry: Any, where: str, number: int) -> Library:
    reader = Reader(entry, where, f"extension {number} of the record")
    file = reader.text("file")
    member_names.check([file], where)
    if not member_names.is_library(file):
        raise RefusedError(
            "member-name", where, f"the record lists {file!r}", expected="libraries below vllm/"
        )
    return Library(file, reader.sha256("sha256"), reader.size("size", bounds.LIBRARY))


def parse(data: bytes, output: str, where: str) -> Record:
    """Parse the record of ``output``.

    Raises:
        RefusedError: it is malformed, describes another output, or lists files that are not
            extension libraries.
    """
    bounds.check_size(len(data), bounds.DOCUMENT, where, "the record")
    reader = Reader(load_json(data, where, "the record"), where, "the record")
    if reader.document.get("schema") != SCHEMA:
        raise reader.fail("schema", f"{SCHEMA}")
    if reader.text("component") != output:
        raise reader.fail("component", output)
    libraries = tuple(
        _library(entry, where, n)
        for n, entry in enumerate(reader.items("extensions", bounds.LIBRARIES), 1)
    )
    member_names.check((library.file for library in libraries), where)
    bounds.check_size(sum(library.size for library in libraries), bounds.OUTPUT, where, output)
    private = (
        tuple(reader.items("private", bounds.LIBRARIES)) if "private" in reader.document else ()
    )
    if not all(isinstance(name, str) for name in private):
        raise reader.fail("private", "a list of strings")
    return Record(
        output,
        reader.sha256("build_digest"),
        reader.text("device"),
        None if reader.document.get("toolkit") is None else reader.version("toolkit"),
        # Records of older trees have no platform, Python ABI or torch release. They are refused,
        # because nothing else says which machine they are for.
        reader.text("platform"),
        reader.text("python_abi"),
        reader.version("torch_target"),
        libraries,
        data,
        private,
        # Older trees had no private builds, and their records no such key.
        reader.sha256("tree_digest") if "tree_digest" in reader.document else "",
    )
