# SPDX-License-Identifier: Apache-2.0
"""After linking: nothing is asked for that the user's machine will not have.

The linker's ``-z defs`` finds symbols that nobody provides at build time. This finds what it
cannot: symbols that some library of the build machine provides and no package promises, such as a
second OpenMP runtime, a C++ symbol of libtorch, or CUDA in a CPU build.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.checks import elf
from vllm_build.util.errors import BuildError

if TYPE_CHECKING:
    from pathlib import Path

#: Present wherever the package may be installed: glibc's libraries and GCC's two.
_SYSTEM = re.compile(
    r"(libc|libm|libpthread|libdl|librt|libstdc\+\+|libgcc_s|ld-linux[\w-]*)\.so\.[0-9]+$"
)
#: libtorch's stable ABI is C functions with these prefixes, and nothing else of torch.
_TORCH = re.compile(r"(aoti_torch|torch)_\w+$")
#: libtorch's own files; a library that is not for torch needs none of them.
_TORCH_FILES = re.compile(r"lib(torch|c10)\w*\.so$")
#: The interpreter's; abi3audit looks at which.
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
    """What one device adds: libraries by their SONAME, symbols by name."""

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
    """What is wrong with a library built for ``device``, one sentence each; nothing when it will load on the user's machine.

    Args:
        library: what the file asks for.
        device: key of the rules above.
        torch: whether it is for libtorch; a Python module that is not must load without it.
    """
    rule = _RULES[device]
    strange = [
        name for name in library.needed if not (_SYSTEM.match(name) or rule.needed.match(name))
    ]
    found = [
        f"needs the library {name}, which no package of a {device} build promises"
        for name in strange
    ]
    if not torch:
        found += [
            f"needs {name}, and is declared to need no torch"
            for name in library.needed
            if _TORCH_FILES.match(name)
        ]
    for symbol in library.undefined:
        if symbol.weak and (symbol.name in _START_FILES or _THREADS.match(symbol.name)):
            continue
        if symbol.version:
            if not (_SYSTEM.match(symbol.library) or rule.needed.match(symbol.library)):
                found.append(f"asks for {symbol.name}@{symbol.version} of {symbol.library}")
        elif not (
            (torch and _TORCH.match(symbol.name))
            or _PYTHON.match(symbol.name)
            or rule.symbols.match(symbol.name)
        ):
            owners = "torch's stable ABI, Python's" if torch else "Python's"
            found.append(
                f"asks for {symbol.name}, which is not {owners}, libc's or the {device} toolkit's"
            )
    return tuple(found)


def require(path: Path, device: str, *, torch: bool = True) -> None:
    """Check the library at ``path``, as :func:`complaints` does; files of another format than ELF (macOS) are not judged.

    Raises:
        BuildError: it asks for something that the user's machine need not have.
    """
    if not elf.is_elf(path):
        return
    found = complaints(elf.read(path), device, torch=torch)
    if found:
        shown = [f"  {path.name} {text}" for text in found[:8]]
        if len(found) > len(shown):
            shown.append(f"  … and {len(found) - len(shown)} more")
        raise BuildError(
            f"{path} would not load everywhere:\n" + "\n".join(shown),
            expected="only symbols of libtorch's stable ABI, Python's limited API, libc, libstdc++ "
            "and the device's toolkit",
            remedy="find the source that uses it; headers of ATen, c10 or another library do that",
        )
