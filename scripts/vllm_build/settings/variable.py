# SPDX-License-Identifier: Apache-2.0
"""One environment variable: its name, kind and text, and how a field of ``build_settings.Settings`` declares it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from vllm_build.settings.value_kinds import Kind, checked

if TYPE_CHECKING:
    from collections.abc import Mapping

D = TypeVar("D")

#: Headings of the documentation, by the first field of each.
SECTIONS = {
    "target_device": "Device and toolkits",
    "version_override": "Version",
    "max_jobs": "Jobs",
    "build_type": "CMake",
    "c_launcher": "Compiler caches",
    "use_precompiled": "Precompiled kernels",
    "search_path": "Where programs are looked for",
    "cache": "The driver",
}


@dataclass(frozen=True)
class Variable:
    """One environment variable.

    Attributes:
        name: of the variable.
        field: the attribute of :class:`Settings` that holds its value.
        section: the heading it stands under in the documentation.
        kind: how its text becomes a value.
        default: what an unset variable means, in words.
        doc: what it does, one line.
    """

    name: str
    field: str
    section: str
    kind: Kind[Any]
    default: str
    doc: str

    def read(self, environ: Mapping[str, str]) -> Any:
        """The typed value; None when the variable is unset or empty.

        Raises:
            ConfigurationError: the value is malformed.
        """
        text = environ.get(self.name, "")
        if not text.strip():
            return None
        return checked(
            self.name,
            self.kind,
            text,
            f"correct {self.name}, or unset it (unset means: {self.default})",
        )


def declare(name: str, kind: Kind[Any], value: D, default: str, doc: str) -> D:
    """Declare a field: ``value`` is what it holds when variable ``name`` is unset, ``default`` says so in words."""
    return dataclasses.field(default=value, metadata={"variable": (name, kind, default, doc)})
