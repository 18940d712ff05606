# SPDX-License-Identifier: Apache-2.0
"""Compiles stand-ins for functions that the official CUDA libraries need and a machine may lack.

Libraries that are built with GCC 13 call a function of its libstdc++ once, to set up ``std::cout``;
an older libstdc++ does that by itself. On a machine without CUDA, stand-ins with the names of
functions of the driver and of torch let the libraries load, so that their schemas can be read.
Calling a stand-in ends the process.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

#: Library -> functions of it that the official libraries of 0.33 use.
FUNCTIONS = {
    "libcuda.so.1": (
        "cuDriverGetVersion",
        "cuGetProcAddress_v2",
        "cuPointerGetAttribute",
        "cuTensorMapEncodeTiled",
    ),
    "libtorch_cuda.so": (
        "aoti_torch_get_current_cuda_stream",
        "cublasHgemm",
        "torch_c10_cuda_check_msg",
        "torch_c10_cuda_free_error_msg",
        "torch_get_current_cuda_blas_handle",
    ),
}
SETS_UP_STREAMS = "_ZSt21ios_base_library_initv"


def _load(source: str, soname: str) -> None:
    compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc")
    if compiler is None:
        raise OSError(
            f"the official library needs {soname}, and there is no C compiler (CC, cc, gcc) to "
            "make a stand-in for it"
        )
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / soname
        command = [
            compiler,
            "-shared",
            "-fPIC",
            f"-Wl,-soname,{soname}",
            "-o",
            str(library),
            "-x",
            "c",
            "-",
        ]
        done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(
                f"{compiler} cannot compile a stand-in for {soname}: {done.stderr.strip()[-200:]}"
            )
        # The library stays mapped after the file is deleted.
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def _runtime() -> None:
    """Load the CUDA runtime of the package nvidia-cuda-runtime, if torch did not bring it."""
    import nvidia  # type: ignore[import-not-found]  # noqa: PLC0415 - only needed without torch for CUDA

    found = [
        file for folder in nvidia.__path__ for file in Path(folder).glob("*/lib/libcudart.so.13")
    ]
    if not found:
        raise OSError(
            "the official library needs libcudart.so.13: pip install 'nvidia-cuda-runtime==13.*'"
        )
    ctypes.CDLL(str(found[0]), mode=ctypes.RTLD_GLOBAL)


def load(*, cuda: bool) -> None:
    """Load missing functions.

    With ``cuda``, stand-ins for the driver and for torch's CUDA part are loaded too.

    Raises:
        OSError: there is no compiler, or no CUDA runtime.
    """
    if not hasattr(ctypes.CDLL("libstdc++.so.6"), SETS_UP_STREAMS):
        _load(f"void {SETS_UP_STREAMS}(void) {{}}\n", "libbench_streams.so")
    if not cuda:
        return
    for soname, functions in FUNCTIONS.items():
        try:
            ctypes.CDLL(soname)
        except OSError:
            _load(
                "".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for name in functions),
                soname,
            )
    try:
        ctypes.CDLL("libcudart.so.13")
    except OSError:
        try:
            _runtime()
        except ImportError:
            raise OSError(
                "the official library needs libcudart.so.13: pip install "
                "'nvidia-cuda-runtime==13.*'"
            ) from None
