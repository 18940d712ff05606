# SPDX-License-Identifier: Apache-2.0
"""Finds libtorch's headers and library.

It only looks at files: importing torch would be slow and could break a build.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from vllm_build.target.torch_flavour import TorchFlavour, installed
from vllm_build.util.errors import ToolchainError

__all__ = ["TorchFiles", "TorchFlavour", "find", "installed"]

#: The libtorch release whose stable ABI the extensions use. Every later release can load them.
MINIMUM = Version("2.11")
_MARKER = Path("torch") / "headeronly" / "version.h"


@dataclass(frozen=True)
class TorchFiles:
    """libtorch as the compiler and the linker see it.

    Attributes:
        include: the folder with ``torch/csrc/stable`` and ``torch/headeronly``.
        library: the path of ``libtorch_cpu.so``.
        version: the version in the headers.
        origin: where they were found, in words.
    """

    include: Path
    library: Path
    version: str
    origin: str


def _version_of(include: Path) -> str:
    text = (include / _MARKER).read_text(encoding="utf-8")
    parts = [
        re.search(rf"#define TORCH_VERSION_{part} ([0-9]+)", text)
        for part in ("MAJOR", "MINOR", "PATCH")
    ]
    return ".".join(match.group(1) for match in parts if match)


def find(prefix: Path | None = None) -> TorchFiles:
    """Find libtorch in a conda prefix, an importable torch, or this interpreter's site-packages.

    The places are searched in this order; in a prefix, ``include/torch`` and ``lib``. An isolated
    build hides the site-packages, but because of the stable ABI their torch is as good as one that
    is installed only for the build.

    Raises:
        ToolchainError: no place has libtorch's stable headers and its library, or they are older
            than the ABI that the kernels use.
    """
    candidates: list[tuple[str, Path, Path]] = []
    base = prefix or Path(sys.prefix)
    candidates.append((f"libtorch in the prefix {base}", base / "include", base / "lib"))
    spec = importlib.util.find_spec("torch")
    packages = [Path(spec.origin).parent] if spec is not None and spec.origin is not None else []
    packages += [flavour.path for flavour in installed() if flavour.path.name == "torch"]
    candidates += [
        (f"the installed torch in {p}", p / "include", p / "lib") for p in dict.fromkeys(packages)
    ]
    old = []
    for origin, include, lib in candidates:
        library = lib / "libtorch_cpu.so"
        if (include / _MARKER).is_file() and library.is_file():
            version = _version_of(include)
            if Version(version) >= MINIMUM:
                return TorchFiles(include, library, version, origin)
            old.append(f"{origin} is {version}")
    if old:
        raise ToolchainError(
            "the installed torch is too old: " + "; ".join(old),
            expected=f"torch >= {MINIMUM}",
            remedy=f"pip install 'torch>={MINIMUM}'",
        )
    raise ToolchainError(
        "libtorch's headers were not found; looked at "
        + "; ".join(f"{include} ({origin})" for origin, include, _ in candidates),
        expected=f"torch >= {MINIMUM} installed in this environment",
        remedy=f"pip install 'torch>={MINIMUM}', or build in an environment with libtorch",
    )
