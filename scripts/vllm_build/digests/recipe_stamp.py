# SPDX-License-Identifier: Apache-2.0
"""Keeps the version and the digests in ``recipe/variants.yaml`` in step with the tree.

The recipe uses them in names and pins. The file is committed, so plain ``rattler-build build
--recipe recipe`` works without this library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.digests import kernel_inputs, tree_digests
from vllm_build.project import distribution_version
from vllm_build.util.errors import IntegrityError
from vllm_build.util.files import holds, write_if_changed

if TYPE_CHECKING:
    from pathlib import Path

#: Below the source root.
FILE = "recipe/variants.yaml"
_HEADER = """\
# SPDX-License-Identifier: Apache-2.0
# Written by `vllm-build stamp`; a test fails if it does not match the tree.
"""


def key(component: str) -> str:
    """The recipe's key for an output's digest: ``flash_attn_digest`` for ``vllm-flash-attn``."""
    return component.removeprefix("vllm-").replace("-", "_") + "_digest"


def values(root: Path) -> dict[str, str]:
    """The stamps of the tree as it is now."""
    return {
        "vllm_version": distribution_version.base_version(root),
        **{
            key(component): tree_digests.kernel_digest(root, component)[: tree_digests.SHORT]
            for component in kernel_inputs.components(root)
        },
        "package_digest": tree_digests.package_digest(root)[: tree_digests.SHORT],
        "recipe_digest": tree_digests.recipe_digest(root)[: tree_digests.SHORT],
    }


def _text(stamps: dict[str, str]) -> str:
    return _HEADER + "".join(f'{key}:\n  - "{value}"\n' for key, value in stamps.items())


def write(root: Path) -> bool:
    """Write the file; returns whether anything changed."""
    return write_if_changed(root / FILE, _text(values(root)))


def check(root: Path) -> None:
    """Compare the file with the tree.

    Raises:
        IntegrityError: they differ.
    """
    path = root / FILE
    if not holds(path, _text(values(root))):
        raise IntegrityError(
            f"{path} does not match the tree",
            expected="the version and the digests of this tree",
            remedy="vllm-build stamp",
        )
