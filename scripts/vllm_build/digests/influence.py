# SPDX-License-Identifier: Apache-2.0
"""One thing that shapes a build and that its tree does not describe."""

from __future__ import annotations

from dataclasses import dataclass

from vllm_build.util.redaction import excerpt

_SHOWN = 120


@dataclass(frozen=True)
class Influence:
    """One thing that shapes a build and not its tree: its name, its value for people, and the sha256 of what counts."""

    name: str
    value: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name}={excerpt(self.value, _SHOWN)}"
