# SPDX-License-Identifier: Apache-2.0
"""CUTLASS's headers as a build includes them: the locked ones or the user's, through a link below the build folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.sources import stable_inputs, third_party
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.kernels.build_plan import Plan
    from vllm_build.settings.build_settings import Settings

NAME = "cutlass"
#: Libraries of the table, as cmake/vllm_link_library.cmake spells them, that are written with it.
_USERS = {NAME, "flash-attention", "flash-attention-3"}
#: Where the locked archive has the folder that a checkout of CUTLASS calls ``include``.
_LOCKED = "third_party/cutlass/include"


def _includes(folder: Path) -> Path:
    """The headers in the locked archive, or in a checkout of CUTLASS.

    Raises:
        ConfigurationError: the folder is neither.
    """
    for include in (folder / _LOCKED, folder / "include"):
        if (include / "cute").is_dir() and (include / "cutlass").is_dir():
            return include
    raise ConfigurationError(
        f"{folder} holds no sources of CUTLASS",
        expected="include/cutlass and include/cute in it",
        remedy=f"correct {third_party.variable(NAME)}, or unset it and run `vllm-build fetch "
        f"{NAME}`",
    )


def is_needed(plan: Plan) -> bool:
    """Whether something of the plan is written with CUTLASS: kernels of ours, or FlashAttention's."""
    return not _USERS.isdisjoint(plan.libraries)


def prepare(root: Path, settings: Settings, plan: Plan, inputs: Path) -> dict[str, str]:
    """Put the headers below ``inputs`` if the plan needs them; returns CMake's variables, none when it does not.

    Raises:
        ConfigurationError: the folder that the user named holds something else.
        FetchError: the locked headers have not been fetched.
    """
    if not is_needed(plan):
        return {}
    source = third_party.folder(root, NAME, settings.cutlass_source)
    return {
        "CUTLASS_INCLUDE_DIR": str(
            stable_inputs.link(inputs / "cutlass-include", _includes(source))
        )
    }
