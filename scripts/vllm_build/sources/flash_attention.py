# SPDX-License-Identifier: Apache-2.0
"""FlashAttention's sources, locked or the user's, copied to the build folder and patched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.sources import patches, stable_inputs, third_party
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.kernels.build_plan import Plan
    from vllm_build.settings.build_settings import Settings

NAME = "flash-attention"
#: Folder of the kernels of FlashAttention 2 and their headers, below FlashAttention's folder.
KERNELS = "csrc/flash_attn/src"
#: The same folder of FlashAttention 3.
HOPPER = "hopper"
_PATCHES = f"third_party/patches/{NAME}"


def _project(folder: Path) -> Path:
    """FlashAttention's folder in the locked archive, or a checkout of FlashAttention.

    Raises:
        ConfigurationError: ``folder`` is neither of them.
    """
    for project in (folder / "third_party" / "flash-attention", folder):
        if (project / KERNELS).is_dir():
            return project
    raise ConfigurationError(
        f"{folder} does not contain the sources of FlashAttention",
        expected=f"{KERNELS} in it",
        remedy=f"correct {third_party.variable(NAME)}, or unset it and run `vllm-build fetch "
        f"{NAME}`",
    )


def prepare(root: Path, settings: Settings, plan: Plan, inputs: Path) -> dict[str, str]:
    """Copy the sources that the plan needs below ``inputs`` and patch them.

    Returns CMake variables: none if the plan needs no source of FlashAttention.

    Raises:
        ConfigurationError: the user's folder does not contain FlashAttention, or lacks a source of
            the plan.
        FetchError: the locked sources have not been fetched.
        IntegrityError: the fetched sources were changed, or our patches do not fit the sources.
    """
    wanted = plan.third_party_sources.get(NAME)
    if wanted is None:
        return {}
    project = _project(
        third_party.folder(root, NAME, settings.flash_attention_source, ", or unset VLLM_FA_SET")
    )
    for name in wanted:
        if not (project / name).is_file():
            raise ConfigurationError(
                f"{project / name} does not exist",
                expected="every source that csrc/kernels.toml lists",
            )
    changes = {patch.path: patch for patch in patches.read(root / _PATCHES)}

    def changed(name: str, data: bytes) -> bytes:
        patch = changes.get(name)
        return data if patch is None else patches.apply(patch, data.decode(), str(project)).encode()

    folders = tuple(
        folder
        for folder in (KERNELS, HOPPER)
        if any(name.startswith(f"{folder}/") for name in wanted)
    )
    copy = stable_inputs.mirror(
        project, inputs / NAME, folders, change=changed, what="the sources of FlashAttention"
    )
    return {"FLASH_ATTENTION_SRC_DIR": str(copy)}
