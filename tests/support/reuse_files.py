# SPDX-License-Identifier: Apache-2.0
"""Small builds to reuse, as folders, wheels, ``.conda`` files and channels.

Their libraries have an ELF header and random content.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import random
import struct
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import zstandard
from packaging.version import Version

from vllm_build.reuse.records.fitness import Machine, Wanted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OUTPUT = "vllm-kernels"
RECORD = f"vllm/_build_info/{OUTPUT}.json"
DIGEST = "ab" * 32
KERNEL_DIGEST = "cd" * 32
LIBRARIES = ("vllm/_C.abi3.so", "vllm/_moe_C.abi3.so")
WHEEL_NAME = "vllm-0.1.0-py3-none-any.whl"
MACHINES = {"x86_64": 62, "aarch64": 183, "ppc64le": 21, "riscv64": 243}


def elf(seed: int = 0, size: int = 3000, machine: int | None = None) -> bytes:
    """The ELF header of a shared library, and incompressible bytes."""
    number = MACHINES[platform.machine()] if machine is None else machine
    head = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9) + struct.pack("<HH", 3, number)
    return head + random.Random(seed).randbytes(size - len(head))  # noqa: S311 - no secret


@dataclass
class Build:
    """A build of one output, with defects if a test asks for them.

    Attributes:
        libraries: path -> content.
        facts: fields of the record that replace the valid ones.
        lies: path -> sha256 and size in the record, instead of the true ones.
        output: its name.
    """

    libraries: dict[str, bytes] = field(
        default_factory=lambda: {name: elf(n) for n, name in enumerate(LIBRARIES)}
    )
    facts: dict[str, Any] = field(default_factory=dict)
    lies: dict[str, dict[str, Any]] = field(default_factory=dict)
    output: str = OUTPUT

    @property
    def record_name(self) -> str:
        return f"vllm/_build_info/{self.output}.json"

    def record(self) -> bytes:
        """The record of the build."""
        document = {
            "schema": 1,
            "component": self.output,
            "device": "cpu",
            "toolkit": None,
            "platform": sysconfig.get_platform(),
            "python_abi": "abi3",
            "torch_target": "2.11",
            "kernel_digest": KERNEL_DIGEST,
            "build_digest": DIGEST,
            "extensions": [
                {
                    "name": name,
                    "file": name,
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "size": len(data),
                    **self.lies.get(name, {}),
                }
                for name, data in self.libraries.items()
            ],
            **self.facts,
        }
        return json.dumps(document, indent=1).encode()

    def members(self) -> dict[str, bytes]:
        """The members of its wheel."""
        return {
            "vllm/__init__.py": b"# python\n" * 400,
            **self.libraries,
            self.record_name: self.record(),
            "vllm-0.1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\n",
            "vllm-0.1.0.dist-info/RECORD": b"",
        }

    def wheel(
        self, folder: Path, name: str = WHEEL_NAME, more: Mapping[str, bytes] | None = None
    ) -> Path:
        """Write a wheel."""
        return write_zip(folder / name, {**self.members(), **(more or {})})

    def conda(
        self,
        folder: Path,
        name: str = "vllm-kernels-0.1.0-cpu_0.conda",
        more: Mapping[str, bytes] | None = None,
    ) -> Path:
        """Write a conda package."""
        content = {
            f"site-packages/{path}": data
            for path, data in [*self.libraries.items(), (self.record_name, self.record())]
        }
        return write_conda(
            folder / name,
            [(tarfile.TarInfo(path), data) for path, data in {**content, **(more or {})}.items()],
        )

    def unpacked(self, folder: Path) -> Path:
        """Write the files that an editable build leaves in a tree."""
        for name, data in {**self.libraries, self.record_name: self.record()}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder

    def wanted(self) -> Wanted:
        """The request for exactly this build."""
        return Wanted(
            self.output,
            self.facts.get("build_digest", DIGEST),
            KERNEL_DIGEST,
            tuple(self.libraries),
        )


MACHINE = Machine("cpu", None, Version("2.11"), sysconfig.get_platform(), "abi3")


def write_zip(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write a zip archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return path


def tar_zst(entries: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """The bytes of a compressed tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in entries:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return zstandard.ZstdCompressor().compress(buffer.getvalue())


def write_conda(
    path: Path,
    entries: list[tuple[tarfile.TarInfo, bytes]],
    content: bytes | None = None,
    index: Mapping[str, Any] | None = None,
) -> Path:
    """Write a ``.conda`` file.

    Args:
        path: of the file.
        entries: files of the package.
        content: bytes of the member that should have these files, instead of them.
        index: fields of index.json that replace those from the file name.
    """
    stem = path.name.removesuffix(".conda")
    name, version, build = stem.rsplit("-", 2)
    described = {
        "name": name,
        "version": version,
        "build": build,
        "build_number": 0,
        "depends": [],
        "subdir": path.parent.name,
    }
    members = {
        "metadata.json": b'{"conda_pkg_format_version": 2}',
        f"pkg-{stem}.tar.zst": tar_zst(entries) if content is None else content,
        f"info-{stem}.tar.zst": tar_zst(
            [
                (
                    tarfile.TarInfo("info/index.json"),
                    json.dumps({**described, **(index or {})}).encode(),
                )
            ]
        ),
    }
    return write_zip(path, members, zipfile.ZIP_STORED)


def write_channel(folder: Path, subdir: str, packages: Mapping[str, dict[str, Any]]) -> Path:
    """Write the index of a channel."""
    (folder / subdir).mkdir(parents=True, exist_ok=True)
    text = json.dumps(
        {
            "info": {"subdir": subdir},
            "packages": {},
            "packages.conda": dict(packages),
            "repodata_version": 1,
        }
    )
    (folder / subdir / "repodata.json").write_text(text, encoding="utf-8")
    return folder


def snapshot(*folders: Path) -> dict[str, str]:
    """Path -> sha256 for every file below the folders, except locks."""
    found = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "locks" not in path.parts and path.name != ".lock":
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
