# SPDX-License-Identifier: Apache-2.0
"""Finds the compilers that torch.compile needs on a CPU, and Triton for a GPU."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

#: torch's variable for reusing compiled headers.
_REUSE = "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS"


#: Variable → the programs that it may name, best first, and that of conda's package.
_PROGRAMS = {
    "CXX": (("g++",), "*-conda-linux-gnu-g++"),
    "CC": (("gcc", "clang"), "*-conda-linux-gnu-gcc"),
}


def find(variable: str = "CXX") -> str | None:
    """A compiler for the code that the engine generates; None if there is none.

    It is the one that the variable names, else one on the path, else that of conda's packages
    ``gcc_linux-64`` and ``gxx_linux-64`` in this interpreter's environment. That one has a long
    name, and only an activated environment has it in the variable.

    Args:
        variable: ``CXX`` for torch.compile on a CPU, ``CC`` for Triton.
    """
    if named := os.environ.get(variable, "").strip():
        return shutil.which(named.split()[0])
    programs, pattern = _PROGRAMS[variable]
    if found := next(filter(None, map(shutil.which, programs)), None):
        return found
    folder = Path(sys.prefix, "bin")
    return next((str(path) for path in sorted(folder.glob(pattern))), None)


def what_is_missing(variable: str = "CXX") -> str:
    """For a message: that the variable names a program that does not exist; else nothing."""
    named = os.environ.get(variable, "").strip()
    return f" ({named.split()[0]}, which {variable} names, does not exist)" if named else ""


def use_c() -> str | None:
    """Find the C compiler, and name it in ``CC`` if Triton would not find it; None without one."""
    found = find("CC")
    if found and not os.environ.get("CC", "").strip():
        os.environ["CC"] = found
    return found


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
