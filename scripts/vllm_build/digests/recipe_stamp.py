# SPDX-License-Identifier: Apache-2.0
"""Keeps ``recipe/variants.yaml`` in step with the tree.

The file has the version and the digests that the recipes put into names and pins. It is committed,
so rattler-build works without this library. rattler-build reads a ``variants.yaml`` only next to a
recipe, so each recipe's folder has a link to it, or a copy in an unpacked source distribution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.digests import digest_rules, kernel_inputs, tree_digests
from vllm_build.engine import engine_source
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
    """The recipes' key for a kernel digest: ``flash_attn_digest`` for ``vllm-flash-attn``."""
    return component.removeprefix("vllm-").replace("-", "_") + "_digest"


def recipe_key(package: str) -> str:
    """The recipes' key for a recipe digest: ``flash_attn_recipe_digest`` for ``vllm-flash-attn``.

    The Python package ``vllm`` has ``package_recipe_digest``.
    """
    name = "package" if package == "vllm" else package.removeprefix("vllm-").replace("-", "_")
    return f"{name}_recipe_digest"


def values(root: Path) -> dict[str, str]:
    """The stamps of the tree as it is now."""
    return {
        "vllm_version": distribution_version.base_version(root),
        "engine_version": engine_source.locked(root).version,
        **{
            key(component): tree_digests.kernel_digest(root, component)[: tree_digests.SHORT]
            for component in kernel_inputs.components(root)
        },
        "package_digest": tree_digests.package_digest(root)[: tree_digests.SHORT],
        **{
            recipe_key(package): tree_digests.recipe_digest(root, package)[: tree_digests.SHORT]
            for package in digest_rules.conda_packages(root)
        },
    }


def _text(stamps: dict[str, str]) -> str:
    return _HEADER + "".join(f'{key}:\n  - "{value}"\n' for key, value in stamps.items())


def _files(root: Path) -> list[Path]:
    """The file and, after it, its links or copies next to the recipes."""
    file = root / FILE
    folders = [file.parent / package for package in digest_rules.conda_packages(root)]
    return [file, *(folder / file.name for folder in folders)]


def write(root: Path) -> bool:
    """Write the file and its copies; returns whether anything changed."""
    text = _text(values(root))
    # A link has the text as soon as the file has it, so it remains a link.
    written = [write_if_changed(path, text) for path in _files(root)]
    return any(written)


def check(root: Path) -> None:
    """Compare the file and its copies with the tree.

    Raises:
        IntegrityError: one of them differs from the tree.
    """
    text = _text(values(root))
    for path in _files(root):
        if not holds(path, text):
            raise IntegrityError(
                f"{path} does not match the tree",
                expected="the stamps of this tree",
                remedy="vllm-build stamp",
            )
