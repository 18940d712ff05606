# SPDX-License-Identifier: Apache-2.0
"""Reads the code for AMD GPUs in a library, with LLVM's tools."""

from __future__ import annotations

import re
import struct
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: The head of a compressed bundle, format 3: magic, version, method, size of the whole bundle.
_MAGIC = b"CCOB"
_HEAD = struct.Struct("<4sHHQ")
_TRIPLE = "hipv4-amdgcn-amd-amdhsa--"
_FIELDS = {
    "name": "symbol",
    "scratch": "private_segment_fixed_size",
    "spills": "vgpr_spill_count",
    "stack": "uses_dynamic_stack",
    "wave": "wavefront_size",
}


@dataclass(frozen=True)
class Kernel:
    """The metadata of one kernel.

    Attributes:
        name: the mangled symbol of its descriptor.
        scratch: bytes of scratch memory of each thread.
        spills: vector registers that are kept in memory.
        stack: whether the compiler does not know how much stack it needs.
        wave: threads of a wave.
    """

    name: str
    scratch: int
    spills: int
    stack: bool
    wave: int


@dataclass(frozen=True)
class Code:
    """One code object.

    Attributes:
        unit: the number of the unit in the library.
        target: the architecture, such as ``gfx90a``.
        kernels: those of the unit.
    """

    unit: int
    target: str
    kernels: tuple[Kernel, ...]


def _field(entry: str, name: str) -> str:
    found = re.findall(rf"^    \.{name}: +(\S+)$", entry, re.MULTILINE)
    assert len(found) == 1, (name, entry)
    return str(found[0])


def read_notes(text: str) -> tuple[Kernel, ...]:
    """The kernels in the metadata note, as ``llvm-readelf --notes`` prints it."""
    listed = text.partition("amdhsa.kernels:")[2].partition("\namdhsa.")[0]
    kernels = []
    for entry in re.split(r"^  - ", listed, flags=re.MULTILINE)[1:]:
        fields = {key: _field("    " + entry, name) for key, name in _FIELDS.items()}
        kernels.append(
            Kernel(
                fields["name"],
                int(fields["scratch"]),
                int(fields["spills"]),
                fields["stack"] == "true",
                int(fields["wave"]),
            )
        )
    return tuple(kernels)


def split_bundles(section: bytes) -> list[bytes]:
    """The compressed bundles of a library's section ``.hip_fatbin``, one for each unit."""
    found, at = [], 0
    while (at := section.find(_MAGIC, at)) >= 0:
        _, version, _, size = _HEAD.unpack_from(section, at)
        assert version == 3, version
        found.append(section[at : at + size])
        at += size
    return found


@dataclass(frozen=True)
class Tools:
    """LLVM's tools and a C compiler in a conda environment."""

    prefix: Path

    def run(self, program: str, *arguments: str | Path) -> str:
        """The output of a program of the environment."""
        return subprocess.run(
            [self.prefix / "bin" / program, *arguments],
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def unpack(self, library: Path, folder: Path) -> list[Code]:
        """The code objects of a library; none without code for GPUs."""
        folder.mkdir()
        if ".hip_fatbin" not in self.run("llvm-readelf", "--sections", library):
            return []
        section = folder / "section"
        self.run("llvm-objcopy", f"--dump-section=.hip_fatbin={section}", library, folder / "rest")
        found = []
        for number, bundle in enumerate(split_bundles(section.read_bytes())):
            path = folder / str(number)
            path.write_bytes(bundle)
            bundler = ("clang-offload-bundler", "--type=o", f"--input={path}")
            listed = self.run(*bundler, "--list").split()
            targets = [name for name in listed if name.startswith(_TRIPLE)]
            assert all(name.startswith("host-") for name in {*listed} - {*targets}), listed
            files = [folder / f"{number}-{name.removeprefix(_TRIPLE)}" for name in targets]
            outputs = [f"--output={file}" for file in files]
            self.run(*bundler, "--unbundle", f"--targets={','.join(targets)}", *outputs)
            found += [
                Code(
                    number,
                    name.removeprefix(_TRIPLE),
                    read_notes(self.run("llvm-readelf", "--notes", file)),
                )
                for name, file in zip(targets, files, strict=True)
            ]
        return found

    def link(self, source: Path, library: Path) -> Path:
        """A shared library of one C file, with its file's name as SONAME."""
        flags = ("-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror")
        compiler = "x86_64-conda-linux-gnu-gcc"
        self.run(compiler, *flags, f"-Wl,-soname,{library.name}", source, "-o", library)
        return library
