# SPDX-License-Identifier: Apache-2.0
"""CUTLASS's headers: the locked ones or the user's, behind a link in the build folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.sources import stable_inputs, third_party
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.kernels.build_plan import Plan
    from vllm_build.settings.build_settings import Settings

NAME = "cutlass"
#: Libraries of the table that use CUTLASS, as cmake/vllm_link_library.cmake spells them.
USERS = frozenset({NAME, "flash-attention", "flash-attention-3"})
#: Path in the locked archive of the folder that is called ``include`` in a checkout of CUTLASS.
_LOCKED = "third_party/cutlass/include"


def _includes(folder: Path) -> Path:
    """The folder of headers in the locked archive or in a checkout of CUTLASS.

    Raises:
        ConfigurationError: ``folder`` is neither of them.
    """
    for include in (folder / _LOCKED, folder / "include"):
        if (include / "cute").is_dir() and (include / "cutlass").is_dir():
            return include
    raise ConfigurationError(
        f"{folder} does not contain the sources of CUTLASS",
        expected="include/cutlass and include/cute in it",
        remedy=f"correct {third_party.variable(NAME)}, or unset it and run `vllm-build fetch "
        f"{NAME}`",
    )


def is_needed(plan: Plan) -> bool:
    """Whether a kernel of the plan, ours or FlashAttention's, uses CUTLASS."""
    return not USERS.isdisjoint(plan.libraries)


def prepare(root: Path, settings: Settings, plan: Plan, inputs: Path) -> dict[str, str]:
    """Link the headers below ``inputs`` if the plan needs them.

    Returns CMake variables: none if the plan does not need the headers.

    Raises:
        ConfigurationError: the user's folder does not contain CUTLASS.
        FetchError: the locked headers have not been fetched.
        IntegrityError: the fetched headers were changed.
    """
    if not is_needed(plan):
        return {}
    source = third_party.folder(root, NAME, settings.cutlass_source)
    return {
        "CUTLASS_INCLUDE_DIR": str(
            stable_inputs.link(inputs / "cutlass-include", _includes(source))
        )
    }
