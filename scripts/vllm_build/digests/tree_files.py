# SPDX-License-Identifier: Apache-2.0
"""Files of the source tree as digests see them: their content, without generated files."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

#: Files that builds, stamps and interpreters write. They are never inputs.
GENERATED = ("_version.py", "__pycache__", "variants.yaml", "_build_info")
_BUILT = (".so", ".pyc")
_BINARY = (*_BUILT, ".svg", ".png")


def walk(folder: Path) -> Iterator[Path]:
    """Every file below ``folder`` except generated ones.

    A link to a file counts as that file under another name: compilers, packers and source
    distributions read the target, and so do digests.

    Raises:
        ConfigurationError: a link leads to a folder, whose files a build could read although no
            digest covers them, or to nothing.
    """
    for path in folder.rglob("*"):
        if set(path.relative_to(folder).parts) & set(GENERATED) or path.suffix in _BUILT:
            continue
        if path.is_file():
            yield path
        elif path.is_symlink():
            where = "a folder" if path.is_dir() else "nothing"
            raise ConfigurationError(
                f"{path} is a symbolic link to {where} ({path.readlink()})",
                expected="files, or links to files: digests cover only these",
                remedy="remove the link, or replace it by a copy of its target; if it is the lock "
                "of an editor, save the file",
            )


def below(root: Path, entries: Iterable[str]) -> set[Path]:
    """The files that ``entries`` name below ``root``, folders with all files except generated ones.

    Raises:
        ConfigurationError: an entry does not exist, or as :func:`walk`.
    """
    found: set[Path] = set()
    for entry in entries:
        path = root / entry
        if path.is_file():
            found.add(path)
        elif path.is_dir():
            found.update(walk(path))
        else:
            raise ConfigurationError(
                f"{path} does not exist",
                expected="a complete source tree",
                remedy="check out the tree again",
            )
    return {
        p
        for p in found
        if not set(p.relative_to(root).parts) & set(GENERATED) and p.suffix not in _BUILT
    }


def digest_of(path: Path) -> str:
    """Hexadecimal sha256 of one file; CRLF counts as LF in text files."""
    data = path.read_bytes()
    if path.suffix not in _BINARY:
        data = data.replace(b"\r\n", b"\n")
    return hashlib.sha256(data).hexdigest()
