# SPDX-License-Identifier: Apache-2.0
"""What a linked library may need, by device."""

from __future__ import annotations

from pathlib import Path

import pytest
import zstandard

from vllm_build.checks import elf, link_check
from vllm_build.util.errors import BuildError


def library(
    *symbols: elf.Symbol,
    needed: tuple[str, ...] = ("libtorch_cpu.so", "libstdc++.so.6", "libc.so.6"),
) -> elf.SharedLibrary:
    return elf.SharedLibrary(needed, "", (), symbols, (), "")


def plain(name: str, *, weak: bool = False) -> elf.Symbol:
    return elf.Symbol(name, "", "", weak)


@pytest.mark.parametrize(
    ("device", "symbol"),
    [
        ("cpu", plain("aoti_torch_get_data_ptr")),
        ("cpu", plain("torch_library_init_def")),
        ("cpu", plain("PyModuleDef_Init", weak=True)),
        ("cpu", plain("__gmon_start__", weak=True)),
        ("cpu", plain("__pthread_key_create", weak=True)),
        ("cpu", elf.Symbol("memcpy", "GLIBC_2.14", "libc.so.6", False)),
        ("cpu", elf.Symbol("_ZSt4cout", "GLIBCXX_3.4", "libstdc++.so.6", False)),
        ("cpu", elf.Symbol("__tls_get_addr", "GLIBC_2.3", "ld-linux-x86-64.so.2", False)),
        ("cuda", plain("cudaLaunchKernel")),
        ("cuda", plain("cuMemCreate")),
        ("cuda", plain("__cudaRegisterFatBinary")),
        ("cuda", elf.Symbol("cudaMalloc", "libcudart.so.12", "libcudart.so.12", False)),
        ("rocm", plain("hipLaunchKernel")),
        ("rocm", elf.Symbol("hipMalloc", "hip_4.2", "libamdhip64.so.6", False)),
        ("rocm", plain("__hipRegisterFatBinary")),
        ("xpu", plain("_ZN4sycl3_V15queue4waitEv")),
        ("xpu", plain("urDeviceGet")),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_allowed(device: str, symbol: elf.Symbol) -> None:
    assert link_check.complaints(library(symbol), device) == ()


@pytest.mark.parametrize(
    ("device", "symbol"),
    [
        ("cpu", plain("_ZN2at4_ops3add4callERKNS_6TensorES4_RKN3c106ScalarE")),
        ("cpu", plain("_ZN3c106detail14torchCheckFailEPKcS2_jRKSs")),
        ("cpu", plain("cudaLaunchKernel")),
        ("cpu", plain("dgemm_")),
        ("cpu", plain("__gmon_start__")),  # not weak, so the library needs it
        ("cpu", plain("pthread_create")),
        ("cpu", elf.Symbol("GOMP_parallel", "GOMP_4.0", "libgomp.so.1", False)),
        ("cuda", plain("hipMalloc")),
        ("cuda", plain("culler")),
        ("rocm", plain("cudaMalloc")),
        ("xpu", plain("_ZN3c104cuda20getCurrentCUDAStreamEa")),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_not_allowed(device: str, symbol: elf.Symbol) -> None:
    (complaint,) = link_check.complaints(library(symbol), device)
    assert complaint.startswith(f"needs {symbol.name}")


@pytest.mark.parametrize(
    ("device", "name", "good"),
    [
        ("cpu", "libgomp.so.1", False),
        ("cpu", "libcudart.so.12", False),
        ("cuda", "libcudart.so.12", True),
        ("cuda", "libcuda.so.1", True),
        ("cuda", "libamdhip64.so.6", False),
        ("rocm", "libamdhip64.so.6", True),
        ("xpu", "libsycl.so.8", True),
        ("xpu", "libcuda.so.1", False),
        ("cpu", "libtorch_python.so", False),
        ("cpu", "libpython3.11.so.1.0", False),
        ("cpu", "ld-linux-x86-64.so.2", True),
    ],
)
def test_needed_libraries(device: str, name: str, good: bool) -> None:  # noqa: FBT001 - a column of the table
    assert (link_check.complaints(library(needed=(name,)), device) == ()) is good


@pytest.mark.parametrize(
    ("symbol", "needed", "said"),
    [
        (plain("PyLong_FromLong"), "libdl.so.2", ()),
        (elf.Symbol("dlopen", "GLIBC_2.2.5", "libdl.so.2", False), "libc.so.6", ()),
        (
            plain("aoti_torch_get_data_ptr"),
            "libc.so.6",
            ("needs aoti_torch_get_data_ptr, which is not Python's, ",),
        ),
        (
            plain("PyLong_FromLong"),
            "libtorch_cpu.so",
            ("needs libtorch_cpu.so, but is declared to work without torch",),
        ),
        (
            plain("PyLong_FromLong"),
            "libc10_cuda.so",
            ("needs libc10_cuda.so, but is declared to work without torch",),
        ),
    ],
)
def test_a_library_that_is_not_for_torch(
    symbol: elf.Symbol, needed: str, said: tuple[str, ...]
) -> None:
    found = link_check.complaints(library(symbol, needed=(needed,)), "cuda", torch=False)
    assert len(found) == len(said)
    assert all(complaint.startswith(start) for complaint, start in zip(found, said, strict=True))
    assert link_check.complaints(library(symbol, needed=(needed,)), "cuda") == ()


def test_a_real_library_that_must_not_be_shipped(tmp_path: Path) -> None:
    """An extension that calls CPython passes; the same symbols in another library do not."""
    (extension,) = Path(zstandard.__file__).parent.glob("backend_c.*.so")
    link_check.require(extension, "cpu")
    data = extension.read_bytes().replace(b"libc.so.6\0", b"libx.so.6\0")
    bad = tmp_path / "bad.so"
    bad.write_bytes(data)
    with pytest.raises(BuildError, match=r"bad\.so needs the library libx\.so\.6") as caught:
        link_check.require(bad, "cpu")
    assert "more" in caught.value.message, (
        "every symbol is a problem, but only the first ones are shown"
    )
    (tmp_path / "macos.so").write_bytes(b"\xcf\xfa\xed\xfe")
    link_check.require(tmp_path / "macos.so", "cpu")
