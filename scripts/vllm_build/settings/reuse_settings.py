# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF009 - `_var` declares fields, as `dataclasses.field` does
"""Variables that control the reuse of precompiled kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.settings.value_kinds import FILE, FLAG, LOCATION, LOCATIONS, SHA256, TEXT, choice
from vllm_build.settings.variable import declare as _var

if TYPE_CHECKING:
    from pathlib import Path

_NONE: None = None


@dataclass(frozen=True)
class ReuseSettings:
    """Which precompiled kernels are used, and where they come from."""

    # Precompiled kernels
    use_precompiled: bool = _var(
        "VLLM_USE_PRECOMPILED",
        FLAG,
        False,
        "`0`",
        "`1`: use the kernels of a build of exactly these sources.",
    )
    precompiled_location: str | None = _var(
        "VLLM_PRECOMPILED_WHEEL_LOCATION",
        LOCATION,
        _NONE,
        "a lookup by build digest",
        "A wheel or `.conda` file, as a path or URL; it implies `VLLM_USE_PRECOMPILED=1`.",
    )
    precompiled_sha256: str | None = _var(
        "VLLM_PRECOMPILED_SHA256",
        SHA256,
        _NONE,
        "not compared",
        "The sha256 that this file must have.",
    )
    precompiled_stores: tuple[str, ...] = _var(
        "VLLM_PRECOMPILED_STORES",
        LOCATIONS,
        (),
        "none",
        "Folders, http(s) indexes and conda channels in which to look up the build digest.",
    )
    precompiled_key: Path | None = _var(
        "VLLM_PRECOMPILED_KEY",
        FILE,
        _NONE,
        "only stores that declare no signer are accepted",
        "The signer's public key, PEM. Every store must be signed with it; unsigned kernels are "
        "refused.",
    )
    precompiled_partial: bool = _var(
        "VLLM_PRECOMPILED_PARTIAL",
        FLAG,
        False,
        "`0`",
        "`1`: compile the outputs that no store has, instead of stopping with an error.",
    )
    precompiled_private: bool = _var(
        "VLLM_PRECOMPILED_PRIVATE",
        FLAG,
        False,
        "`0`: refused",
        "`1`: accept private builds of these sources: their flags or third-party sources were "
        "changed.",
    )
    precompiled_foreign: str = _var(
        "VLLM_PRECOMPILED_FOREIGN",
        choice("0", "1", "incomplete"),
        "0",
        "`0`: refused",
        "`1`: the file may be an official wheel of vLLM, which is audited; `incomplete`: it may "
        "also lack ops.",
    )
    netrc: str = _var(
        "NETRC",
        TEXT,
        "",
        "`~/.netrc`",
        "The file with user names and passwords for the servers from which kernels are downloaded.",
    )

    @property
    def precompiled(self) -> bool:
        """Whether kernels are reused instead of compiled: by request, or because of a location."""
        return self.use_precompiled or self.precompiled_location is not None

    @property
    def accepts_foreign(self) -> bool:
        """Whether an official wheel may replace a build of this tree."""
        return self.precompiled_foreign != "0"
