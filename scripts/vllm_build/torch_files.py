# SPDX-License-Identifier: Apache-2.0
"""Where libtorch's headers and library lie, found from files alone: torch is never imported, so it cannot slow or break a build."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from vllm_build.errors import ToolchainError
from vllm_build.torch_flavour import TorchFlavour, installed

__all__ = ["TorchFiles", "TorchFlavour", "find", "installed"]

_MARKER = Path("torch") / "headeronly" / "version.h"


@dataclass(frozen=True)
class TorchFiles:
    """libtorch as the compiler and the linker see it.

    Attributes:
        include: the folder that holds ``torch/csrc/stable`` and ``torch/headeronly``.
        library: ``libtorch_cpu.so``.
        version: the version the headers declare.
        origin: where they were found, in words.
    """

    include: Path
    library: Path
    version: str
    origin: str


def _version_of(include: Path) -> str:
    text = (include / _MARKER).read_text(encoding="utf-8")
    parts = [re.search(rf"#define TORCH_VERSION_{part} (\d+)", text) for part in ("MAJOR", "MINOR", "PATCH")]
    return ".".join(match.group(1) for match in parts if match)


def find(prefix: Path | None = None) -> TorchFiles:
    """Look in a conda prefix (``include/torch``, ``lib``), then in the torch that this interpreter would import.

    Raises:
        ToolchainError: neither place has libtorch's stable headers and its library.
    """
    candidates: list[tuple[str, Path, Path]] = []
    base = prefix or Path(sys.prefix)
    candidates.append((f"libtorch in the prefix {base}", base / "include", base / "lib"))
    spec = importlib.util.find_spec("torch")
    if spec is not None and spec.origin is not None:
        package = Path(spec.origin).parent
        candidates.append((f"the installed torch in {package}", package / "include", package / "lib"))
    for origin, include, lib in candidates:
        library = lib / "libtorch_cpu.so"
        if (include / _MARKER).is_file() and library.is_file():
            return TorchFiles(include, library, _version_of(include), origin)
    raise ToolchainError(
        "libtorch's headers were not found; looked at " + "; ".join(f"{include} ({origin})" for origin, include, _ in candidates),
        expected="torch >= 2.11 installed in this environment",
        remedy="pip install 'torch>=2.11', or build in an environment with libtorch",
    )
