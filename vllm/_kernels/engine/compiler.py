# SPDX-License-Identifier: Apache-2.0
"""Finds the C++ compiler that torch.compile needs on a CPU."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

#: torch's variable for reusing compiled headers.
_REUSE = "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS"


def find() -> str | None:
    """The C++ compiler for torch.compile; None if there is none.

    It is the one that ``CXX`` names, else ``g++`` on the path, else that of conda's package
    ``gxx_linux-64`` in this interpreter's environment. That one has a long name, and only an
    activated environment has it in ``CXX``.
    """
    if named := os.environ.get("CXX", "").strip():
        return shutil.which(named.split()[0])
    if found := shutil.which("g++"):
        return found
    folder = Path(sys.prefix, "bin")
    return next((str(path) for path in sorted(folder.glob("*-conda-linux-gnu-g++"))), None)


def what_is_missing() -> str:
    """For a message: that ``CXX`` names a program that does not exist; else nothing."""
    named = os.environ.get("CXX", "").strip()
    return f" ({named.split()[0]}, which CXX names, does not exist)" if named else ""


def _compile_whole_headers() -> None:
    """Let torch compile its headers each time. To reuse them, it hashes them with ``openssl``."""
    if _REUSE not in os.environ:
        os.environ[_REUSE] = "0"
        settings: Any = sys.modules.get("torch._inductor.config")
        if settings is not None:
            settings.cpp_cache_precompile_headers = False


def use() -> str | None:
    """Find the compiler, and name it in ``CXX`` if torch would not find it; None if there is none.

    torch reads ``CXX`` when its compiler's settings are imported, which the engine does first of
    all, so they are changed, too. The engine's other processes inherit the variable.
    """
    found = find()
    if found and not os.environ.get("PATH"):
        # Python looks in the usual folders then. g++ does not, and would not find the linker.
        os.environ["PATH"] = os.defpath
    if found and not shutil.which("openssl"):
        _compile_whole_headers()
    if found and not os.environ.get("CXX", "").strip() and not shutil.which("g++"):
        os.environ["CXX"] = found
        settings: Any = sys.modules.get("torch._inductor.config")
        if settings is not None:
            settings.cpp.cxx = (None, found)
    return found
