# SPDX-License-Identifier: Apache-2.0
"""Typed access to one ``sources.toml``; every complaint names the file and the line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement

from vllm_build._toml import TOMLDecodeError, loads
from vllm_build.errors import ConfigurationError

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Mapping
    from pathlib import Path


class Reader:
    """Typed access to one parsed file; every complaint names the file and, where it can be told, the line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: cannot be read: {error}") from error
        try:
            self.data = loads(self.text)
        except TOMLDecodeError as error:
            raise ConfigurationError(f"{path}: not valid TOML: {error}", remedy="correct the file") from error

    def fail(self, message: str, *, at: str | None = None, expected: str | None = None) -> ConfigurationError:
        """The error for a mistake, on the first line that holds ``at``; the caller raises it."""
        where = str(self.path)
        if at is not None:
            numbers = [n for n, line in enumerate(self.text.splitlines(), 1) if at in line]
            where += f":{numbers[0]}" if numbers else ""
        return ConfigurationError(f"{where}: {message}", expected=expected)

    def keys(self, table: Mapping[str, Any], allowed: Iterable[str], what: str) -> None:
        """Refuse keys other than ``allowed``."""
        known = tuple(allowed)
        for key in table:
            if key not in known:
                raise self.fail(f"unknown key {key!r} in {what}", at=key, expected="one of " + ", ".join(known))

    def tables(self, table: Mapping[str, Any], key: str, what: str) -> list[Mapping[str, Any]]:
        """An array of tables, at least one."""
        value = table.get(key)
        if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
            raise self.fail(f"{what} has no {key!r} tables", at=key, expected=f"at least one [[{key}]] table")
        return value

    def string(self, table: Mapping[str, Any], key: str, what: str, pattern: re.Pattern[str] | None = None) -> str:
        """A text that is not empty and matches ``pattern``."""
        value = table.get(key)
        if not isinstance(value, str) or not value:
            raise self.fail(f"{what} needs the text {key!r}", at=key, expected=f'{key} = "..."')
        if pattern is not None and not pattern.fullmatch(value):
            raise self.fail(f"{key} = {value!r} in {what} is malformed", at=value, expected=f"text that matches {pattern.pattern}")
        return value

    def strings(self, table: Mapping[str, Any], key: str, what: str) -> tuple[str, ...]:
        """A list of texts, each once; empty where the key is absent."""
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.fail(f"{key!r} in {what} is not a list of texts", at=key, expected=f'{key} = ["..."]')
        if len(set(value)) != len(value):
            raise self.fail(f"{key!r} in {what} names something twice", at=key)
        return tuple(value)

    def flag(self, table: Mapping[str, Any], key: str, what: str) -> bool:
        """A boolean; false where the key is absent."""
        value = table.get(key, False)
        if not isinstance(value, bool):
            raise self.fail(f"{key!r} in {what} is neither true nor false", at=key, expected=f"{key} = true")
        return value

    def exact(self, text: str, what: str) -> str:
        """``text`` where it is a requirement of one version, without extras and markers."""
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise self.fail(f"{text!r} in {what} is no requirement: {error}", at=text, expected="name==version") from error
        pins = list(requirement.specifier)
        if (
            len(pins) != 1
            or pins[0].operator not in ("==", "===")
            or "*" in pins[0].version
            or requirement.marker
            or requirement.extras
            or requirement.url
        ):
            raise self.fail(f"{text!r} in {what} does not name one version", at=text, expected="name==version or name===version")
        return text
