# SPDX-License-Identifier: Apache-2.0
"""Small conda packages and channels."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from typing import TYPE_CHECKING

import zstandard
from rattler_build import assemble_package

from vllm_build.packing import channel_index

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


#: The placeholder for the prefix in files; installation replaces it.
PLACEHOLDER = "/opt/" + "placehold_" * 20


def make_package(
    folder: Path,
    name: str,
    files: Mapping[str, str],
    *,
    version: str = "1.0",
    depends: Sequence[str] = (),
) -> Path:
    """Write a conda package with these files into ``folder``, with rattler-build."""
    payload, target = folder / "payload" / f"{name}-{version}", folder / "noarch"
    shutil.rmtree(payload, ignore_errors=True)
    for path, text in files.items():
        (payload / path).parent.mkdir(parents=True, exist_ok=True)
        (payload / path).write_text(text, encoding="utf-8")
    target.mkdir(parents=True, exist_ok=True)
    assemble_package(
        name,
        version,
        "noarch",
        "h0_0",
        str(target),
        files_dir=str(payload),
        depends=list(depends),
        noarch="generic",
    )
    return target / f"{name}-{version}-h0_0.conda"


def with_prefix(package: Path, files: Mapping[str, str]) -> None:
    """Mark files with :data:`PLACEHOLDER` in ``paths.json`` of a package.

    Args:
        package: changed in place.
        files: path -> file mode, "text" or "binary".
    """
    with zipfile.ZipFile(package) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in members if name.startswith("info-"))
    plain, again = (
        io.BytesIO(zstandard.ZstdDecompressor().stream_reader(io.BytesIO(members[name])).read()),
        io.BytesIO(),
    )
    with tarfile.open(fileobj=plain) as old, tarfile.open(fileobj=again, mode="w") as new:
        for member in old.getmembers():
            stream = old.extractfile(member)
            data = stream.read() if stream else b""
            if member.name == "info/paths.json":
                document = json.loads(data)
                for entry in document["paths"]:
                    if mode := files.get(entry["_path"]):
                        entry |= {"prefix_placeholder": PLACEHOLDER, "file_mode": mode}
                data = json.dumps(document).encode()
                member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    members[name] = zstandard.compress(again.getvalue())
    with zipfile.ZipFile(package, "w", zipfile.ZIP_STORED) as archive:
        for member_name, data in members.items():
            archive.writestr(member_name, data)


def make_channel(folder: Path, *packages: Path) -> str:
    """Make a channel of ``packages``; returns its address."""
    channel_index.publish(packages, folder)
    return folder.as_uri()
