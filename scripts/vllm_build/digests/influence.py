# SPDX-License-Identifier: Apache-2.0
"""An input of a build that its tree does not describe, such as a compiler flag."""

from __future__ import annotations

from dataclasses import dataclass

from vllm_build.util.redaction import excerpt

_SHOWN = 120


@dataclass(frozen=True)
class Influence:
    """An input of a build that its tree does not describe.

    Attributes:
        name: a variable, or another short name.
        value: shown to people.
        digest: sha256 of the content that affects the build.
    """

    name: str
    value: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name}={excerpt(self.value, _SHOWN)}"
