# SPDX-License-Identifier: Apache-2.0
"""Digests of the source tree: what shapes the binaries, and what shapes the Python package.

A digest is sha256 over ``<relative path> NUL <sha256 of the content> LF``, paths in byte order with forward slashes, line endings of text
files normalised. It is the same on every machine, in every folder, with and without git.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from vllm_build.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: What shapes the bytes of the kernels, for all devices alike: sources, build files, and the modules that choose sources, macros and flags.
KERNEL_INPUTS = (
    "CMakeLists.txt",
    "cmake",
    "csrc",
    "third_party",
    *(
        f"scripts/vllm_build/{name}.py"
        for name in ("archs", "flash_attention", "gfx", "gpu_targets", "kernels_table", "patches", "plan", "planned", "table_records")
    ),
    "recipe/build.sh",
    "recipe/copy_licenses.py",
    "recipe/install-kernels.sh",
    "VERSION",
)
#: What shapes the content of the noarch package: its files, and the modules that write its metadata.
PACKAGE_INPUTS = (
    "vllm",
    "requirements",
    "pyproject.toml",
    "setup.py",
    "scripts/vllm_build/backend.py",
    "scripts/vllm_build/distribution.py",
    "scripts/vllm_build/package_files.py",
    "scripts/vllm_build/requirements.py",
    "scripts/vllm_build/version.py",
    "recipe",
    "LICENSE",
    "README.md",
    "VERSION",
)
#: Written by builds, stamps and interpreters: never inputs.
GENERATED = ("_version.py", "__pycache__", "variants.yaml", "_build_info")
_BINARY_SUFFIXES = (".so", ".pyc", ".svg", ".png")
#: Twelve hex digits: enough for names that people compare; the full digest lies in the package's build_info.
SHORT = 12


def _files(root: Path, inputs: Iterable[str]) -> list[Path]:
    found: set[Path] = set()
    for entry in inputs:
        path = root / entry
        if path.is_file():
            found.add(path)
        elif path.is_dir():
            found.update(p for p in path.rglob("*") if p.is_file() and not p.is_symlink())
        else:
            raise ConfigurationError(f"{path} does not exist", expected="a complete source tree", remedy="check the tree out again")
    return [p for p in found if not set(p.relative_to(root).parts) & set(GENERATED) and p.suffix not in (".so", ".pyc")]


def file_digest(path: Path) -> str:
    """sha256 of one file, hexadecimal; CRLF counts as LF in text files."""
    data = path.read_bytes()
    if path.suffix not in _BINARY_SUFFIXES:
        data = data.replace(b"\r\n", b"\n")
    return hashlib.sha256(data).hexdigest()


def tree_digest(root: Path, inputs: Iterable[str]) -> str:
    """Digest of the files and folders ``inputs`` below ``root``, hexadecimal.

    Raises:
        ConfigurationError: an entry does not exist.
    """
    total = hashlib.sha256()
    for name, path in sorted((p.relative_to(root).as_posix(), p) for p in _files(root, inputs)):
        total.update(f"{name}\0{file_digest(path)}\n".encode())
    return total.hexdigest()


def kernel_digest(root: Path) -> str:
    """Digest of everything in the tree that shapes the compiled kernels, for all devices alike."""
    return tree_digest(root, KERNEL_INPUTS)


def package_digest(root: Path) -> str:
    """Digest of everything in the tree that shapes the Python package."""
    return tree_digest(root, PACKAGE_INPUTS)
