# SPDX-License-Identifier: Apache-2.0
"""Locks a conda environment to exact files, and installs exactly these files.

    python lock.py lock LOCK_FILE CHANNEL... -- SPEC...     solve and write the lock
    python lock.py install LOCK_FILE PREFIX                 verify every local file and install

The lock has the format that pixi reads and writes. This needs py-rattler, which is in ``.venv``
(requirements/tools.txt).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from rattler import (
    Channel,
    LockChannel,
    LockFile,
    LockPlatform,
    RepoDataRecord,
    Subdir,
    VirtualPackage,
    VirtualPackageOverrides,
    install,
    solve,
)

ENVIRONMENT = "default"


async def lock(path: Path, channels: list[str], specs: list[str]) -> list[RepoDataRecord]:
    """Solve for this machine and write the result to ``path``."""
    virtual = VirtualPackage.detect(VirtualPackageOverrides.from_env())
    records: list[RepoDataRecord] = await solve(
        sources=[Channel(channel) for channel in channels], specs=specs, virtual_packages=virtual
    )
    platform = LockPlatform(str(Subdir.current()))
    locked = LockFile([platform])
    locked.set_channels(ENVIRONMENT, [LockChannel(channel) for channel in channels])
    for record in records:
        locked.add_conda_package(ENVIRONMENT, platform, record)
    locked.to_path(path)
    return records


def verify(record: RepoDataRecord) -> None:
    """Compare a file of a ``file://`` channel with the lock.

    rattler does this only for files that it downloads.

    Raises:
        SystemExit: the file differs.
    """
    address = urlparse(record.url)
    if address.scheme != "file":
        return
    found = hashlib.sha256(Path(url2pathname(address.path)).read_bytes()).digest()
    if found != record.sha256:
        raise SystemExit(f"{record.url} differs from the locked file")


async def install_locked(path: Path, prefix: Path) -> list[RepoDataRecord]:
    """Install exactly the packages of the lock."""
    locked = LockFile.from_path(path)
    environment, here = locked.environment(ENVIRONMENT), str(Subdir.current())
    found = [
        environment.conda_repodata_records_for_platform(each)
        for each in locked.platforms()
        if environment and each.name == here
    ]
    if not found or not found[0]:
        raise SystemExit(f"{path} has no environment for {here}")
    records: list[RepoDataRecord] = found[0]
    for record in records:
        verify(record)
    await install(records, target_prefix=prefix)
    return records


def main(arguments: list[str]) -> None:
    """Run one of the two commands."""
    match arguments:
        case ["lock", path, *rest] if "--" in rest:
            at = rest.index("--")
            records = asyncio.run(lock(Path(path), rest[:at], rest[at + 1 :]))
            print(f"locked {len(records)} packages in {path}")
        case ["install", path, prefix]:
            records = asyncio.run(install_locked(Path(path), Path(prefix)))
            print(f"installed {len(records)} packages into {prefix}")
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
    # py-rattler 0.28 sometimes crashes at exit. Everything has been written, so skip the cleanup.
    sys.stdout.flush()
    os._exit(0)
