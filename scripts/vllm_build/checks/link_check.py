# SPDX-License-Identifier: Apache-2.0
"""Checks after linking that a library needs nothing that the user's machine lacks.

The linker's ``-z defs`` finds symbols that no library provides at build time. This check finds
symbols that a library of the build machine happens to provide although no package guarantees them:
a second OpenMP runtime, a C++ symbol of libtorch, or CUDA in a CPU build.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.checks import elf
from vllm_build.util.errors import BuildError

if TYPE_CHECKING:
    from pathlib import Path

#: Available wherever the package can be installed: glibc's libraries and the two of GCC.
_SYSTEM = re.compile(
    r"(libc|libm|libpthread|libdl|librt|libstdc\+\+|libgcc_s|ld-linux[\w-]*)\.so\.[0-9]+$"
)
#: libtorch's stable ABI consists of the C functions with these prefixes.
_TORCH = re.compile(r"(aoti_torch|torch)_\w+$")
#: Files of libtorch. A library that is not for torch needs none of them.
_TORCH_FILES = re.compile(r"lib(torch|c10)\w*\.so$")
#: Functions of the interpreter; abi3audit checks which of them are allowed.
_PYTHON = re.compile(r"_?Py[A-Z_]\w*$")
#: Weak references that GCC's start files put into every library.
_START_FILES = (
    "__gmon_start__",
    "_ITM_deregisterTMCloneTable",
    "_ITM_registerTMCloneTable",
    "__cxa_finalize",
)
#: libstdc++'s headers ask weakly whether the process has threads (gthr-posix.h).
_THREADS = re.compile(r"(__)?pthread_\w+$")


@dataclass(frozen=True)
class _Rule:
    """What one device allows in addition: libraries by SONAME, and symbols by name."""

    needed: re.Pattern[str]
    symbols: re.Pattern[str]


_NOTHING = re.compile(r"(?!)")
_TORCH_LIBRARIES = r"lib(torch_cpu|torch|c10)\.so$"
_RULES = {
    "cpu": _Rule(re.compile(_TORCH_LIBRARIES), _NOTHING),
    "cuda": _Rule(
        re.compile(
            _TORCH_LIBRARIES
            + r"|lib(torch_cuda|c10_cuda)\.so$|lib(cuda|cudart|cublas|cublasLt|nvrtc)\.so\.[0-9]+$"
        ),
        re.compile(r"(cu|cuda|cublas|cublasLt|nvrtc|nvtx)[A-Z]\w*$|__cuda\w+$"),
    ),
    "rocm": _Rule(
        re.compile(
            _TORCH_LIBRARIES
            + r"|lib(torch_hip|c10_hip)\.so$|lib(amdhip64|hiprtc|hipblas|hipblaslt)\.so\.[0-9]+$"
        ),
        re.compile(r"(hip|hipblas|hiprtc)[A-Z]\w*$|__hip\w+$"),
    ),
    "xpu": _Rule(
        re.compile(
            _TORCH_LIBRARIES
            + r"|lib(torch_xpu|c10_xpu)\.so$|lib(sycl|ze_loader|OpenCL|ur_loader)\.so\.[0-9]+$"
        ),
        re.compile(r"_Z\w*4sycl\w*$|__sycl\w+$|(ze|ur|cl)[A-Z]\w*$"),
    ),
}


def complaints(library: elf.SharedLibrary, device: str, *, torch: bool = True) -> tuple[str, ...]:
    """Problems of a library that was built for ``device``, one sentence each.

    The result is empty if the library loads on every supported machine.

    Args:
        library: the requirements of the file.
        device: key of the rules above.
        torch: whether the library is for libtorch. A Python module without torch must load alone.
    """
    rule = _RULES[device]
    strange = [
        name for name in library.needed if not (_SYSTEM.match(name) or rule.needed.match(name))
    ]
    found = [
        f"needs the library {name}, which no package of a {device} build guarantees"
        for name in strange
    ]
    if not torch:
        found += [
            f"needs {name}, but is declared to work without torch"
            for name in library.needed
            if _TORCH_FILES.match(name)
        ]
    for symbol in library.undefined:
        if symbol.weak and (symbol.name in _START_FILES or _THREADS.match(symbol.name)):
            continue
        if symbol.version:
            if not (_SYSTEM.match(symbol.library) or rule.needed.match(symbol.library)):
                found.append(f"needs {symbol.name}@{symbol.version} of {symbol.library}")
        elif not (
            (torch and _TORCH.match(symbol.name))
            or _PYTHON.match(symbol.name)
            or rule.symbols.match(symbol.name)
        ):
            owners = "torch's stable ABI, Python's" if torch else "Python's"
            found.append(
                f"needs {symbol.name}, which is not {owners}, libc's or the {device} toolkit's"
            )
    return tuple(found)


def require(path: Path, device: str, *, torch: bool = True) -> None:
    """Check the library at ``path`` with :func:`complaints`; other formats than ELF are skipped.

    Raises:
        BuildError: it needs something that the user's machine may lack.
    """
    if not elf.is_elf(path):
        return
    found = complaints(elf.read(path), device, torch=torch)
    if found:
        shown = [f"  {path.name} {text}" for text in found[:8]]
        if len(found) > len(shown):
            shown.append(f"  … and {len(found) - len(shown)} more")
        raise BuildError(
            f"{path} would not load on every machine:\n" + "\n".join(shown),
            expected="only symbols of libtorch's stable ABI, Python's limited API, libc, libstdc++ "
            "and the device's toolkit",
            remedy="find the source that uses it; often it includes a header of ATen, c10 or "
            "another library",
        )
