# SPDX-License-Identifier: Apache-2.0
"""An environment variable, and how a field of ``build_settings.Settings`` declares it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from vllm_build.settings.value_kinds import Kind, checked

if TYPE_CHECKING:
    from collections.abc import Mapping

D = TypeVar("D")

#: Headings of the documentation, by the first field of each section.
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
        name: the variable's name.
        field: the attribute of :class:`Settings` with its value.
        section: its heading in the documentation.
        kind: converts its text to a value.
        default: the meaning of an unset variable, in words.
        doc: its effect, in one line.
    """

    name: str
    field: str
    section: str
    kind: Kind[Any]
    default: str
    doc: str

    def read(self, environ: Mapping[str, str]) -> Any:
        """The typed value; None if the variable is unset or empty.

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
    """Declare the field of the variable ``name``.

    Args:
        name: the variable's name.
        kind: converts its text to a value.
        value: the field's value if the variable is unset.
        default: the meaning of an unset variable, in words.
        doc: the variable's effect, in one line.
    """
    return dataclasses.field(default=value, metadata={"variable": (name, kind, default, doc)})
