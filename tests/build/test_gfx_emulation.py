# SPDX-License-Identifier: Apache-2.0
"""Parts of the emulator of AMD's instructions that need no compiler and no tables.

``make emulate-gfx`` runs the emulator itself.
"""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING

import pytest
import zstandard

from vllm_build.util import paths

if TYPE_CHECKING:
    from pathlib import Path

sys.path.insert(0, str(paths.source_root() / "tests" / "kernels" / "gfx"))

import gpu_code
import pseudo_code


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "D0.f32 = fma(S0.f32, S1.f32, D0.f32)",
            "Put<float, 32>(D0, fma(As<float, 32>(S0), As<float, 32>(S1), As<float, 32>(D0)));",
        ),
        (
            "D0.u32 = S1.u32 << S0[4 : 0].u32 | 3U",
            (
                "Put<uint32_t, 32>(D0, "
                "(ShiftLeft(As<uint32_t, 32>(S1), As<uint32_t, 32>(Slice(S0, 4, 0))) | 3u));"
            ),
        ),
        ("D0.u64[laneId] = S0.i32 <> 0", "MASK_OUT = (As<int32_t, 32>(S0) != 0);"),
        (
            "D0.u32 = VCC.u64[laneId] ? S1.u32 : S0.u32",
            "Put<uint32_t, 32>(D0, (MASK_IN ? As<uint32_t, 32>(S1) : As<uint32_t, 32>(S0)));",
        ),
        (
            "tmp[31 : 16].f16 = S0[15 : 0].f16; // the upper half\nD0.b32 = tmp.b32",
            (
                "uint64_t tmp = 0; PutSlice(tmp, 31, 16, "
                "Convert<Half, 16>(As<Half, 16>(Slice(S0, 15, 0))));\n"
                "Put<uint32_t, 32>(D0, As<uint32_t, 32>(tmp));"
            ),
        ),
        (
            "if SCC then\nD0.u32 = 1U\nelse\nD0.u32 = 16'0xff\nendif",
            (
                "if (SCC) {\nPut<uint32_t, 32>(D0, 1u);\n} else {\n"
                "Put<uint32_t, 32>(D0, Convert<uint32_t, 16>(0xffu));\n}"
            ),
        ),
    ],
)
def test_pseudo_code_becomes_cpp(text: str, expected: str) -> None:
    assert pseudo_code.translate(text) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("D0.f32 = cos(S0.f32)", "unknown function cos"),
        ("D0.u32 = ELSEWHERE.u32", "unknown name ELSEWHERE"),
        ("D0.f33 = S0.f32", "unknown type f33"),
        ("D0.f32 = 2.0F ** S1.i32", "powers"),
        ("if SCC then\nD0.u32 = 1U", "unbalanced"),
        ("if SCC then\ntmp = 1U\nendif", "defines tmp under a condition"),
        ("D0.u32 = MEM[ADDR].u32", "an implementation of its own"),
    ],
)
def test_what_is_not_translated_is_an_error(text: str, named: str) -> None:
    with pytest.raises(pseudo_code.UnknownPseudoCodeError, match=named.replace("(", r"\(")):
        pseudo_code.translate(text)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("81a26162c3", {"ab": True}),
        ("93 00 7f cd 0123", [0, 127, 0x123]),
        ("d903 616263", "abc"),
        ("dc0002 ce 00010000 c2", [65536, False]),
        ("de0001 a161 cf 0000000100000000", {"a": 2**32}),
    ],
)
def test_message_pack(data: str, value: object) -> None:
    assert gpu_code.unpack(bytes.fromhex(data)) == (value, len(bytes.fromhex(data)))


def test_other_values_of_message_pack_are_an_error() -> None:
    with pytest.raises(gpu_code.UnknownFormatError, match="0xca"):
        gpu_code.unpack(b"\xca\0\0\0\0")


def write_library(path: Path, *bundles: dict[str, bytes]) -> None:
    """A file with bundles as clang compresses them, and other bytes around them."""
    contents = b"ELF CCOB by chance, and not a bundle........................"
    for digest, bundle in enumerate(bundles):
        at = 32 + sum(24 + len(name) for name in bundle)
        head = b"__CLANG_OFFLOAD_BUNDLE__" + struct.pack("<Q", len(bundle))
        for name, code in bundle.items():
            head += struct.pack("<QQQ", at, len(code), len(name)) + name.encode()
            at += len(code)
        whole = head + b"".join(bundle.values())
        packed = zstandard.compress(whole)
        contents += b"CCOB" + struct.pack("<HHQQQ", 3, 1, 32 + len(packed), len(whole), digest)
        contents += packed + b"\0" * 40
    path.write_bytes(contents)


def test_code_of_one_architecture_is_found_in_all_bundles(tmp_path: Path) -> None:
    library = tmp_path / "_C.abi3.so"
    host, amd = "host-x86_64-unknown-linux-gnu-", "hipv4-amdgcn-amd-amdhsa--"
    first = {host: b"", f"{amd}gfx90a": b"one", f"{amd}gfx1100": b"two"}
    write_library(library, first, {host: b"", f"{amd}gfx90a": b"three"})
    assert [(each.hash, each.elf) for each in gpu_code.find_code(library, "gfx90a")] == [
        (0, b"one"),
        (1, b"three"),
    ]
    with pytest.raises(
        gpu_code.UnknownFormatError, match="has gfx1100, gfx90a, expected code for gfx942"
    ):
        gpu_code.find_code(library, "gfx942")


def test_a_library_without_code_for_gpus_is_an_error(tmp_path: Path) -> None:
    library = tmp_path / "_C.abi3.so"
    write_library(library)
    with pytest.raises(gpu_code.UnknownFormatError, match="no code for GPUs"):
        gpu_code.find_code(library, "gfx90a")
