# SPDX-License-Identifier: Apache-2.0
"""The digest of a folder of sources, fast enough to be compared before every build.

One build asks for the same digest several times: for its record, for CMake's configuration, and
where it looks for reusable kernels. :func:`known_digest_of` reads each folder once per process. A
build calls :func:`forget` before it starts, so it always verifies the sources that it compiles.
"""

from __future__ import annotations

import functools
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

#: Reading and hashing release the GIL, so threads help on several cores.
_THREADS = 4


def _entry(folder: Path, name: str) -> str:
    path = folder / name
    if path.is_symlink():
        return f"{name}\0link\0{path.readlink()}\n"
    if not path.is_file():
        return f"{name}\0other\n"
    kind = "program" if path.stat().st_mode & 0o100 else "file"
    return f"{name}\0{kind}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def digest_of(folder: Path) -> str:
    """Hexadecimal sha256 over the path, kind and content of everything below ``folder``.

    Names are in byte order. A symbolic link counts as the path that it points to and is not
    followed, so it never equals a file. Empty folders do not count.

    Raises:
        OSError: a file cannot be read.
    """
    names = []
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        names += [Path(parent, name).relative_to(folder).as_posix() for name in (*files, *links)]
    names.sort(key=os.fsencode)
    total = hashlib.sha256()
    with ThreadPoolExecutor(_THREADS) as pool:
        for entry in pool.map(lambda name: _entry(folder, name), names, chunksize=32):
            total.update(os.fsencode(entry))
    return total.hexdigest()


@functools.cache
def known_digest_of(folder: Path) -> str:
    """The same digest, read at most once between two calls of :func:`forget`.

    A change of the folder in between goes unseen.

    Raises:
        OSError: a file cannot be read.
    """
    return digest_of(folder)


def forget() -> None:
    """Make :func:`known_digest_of` read every folder again."""
    known_digest_of.cache_clear()
