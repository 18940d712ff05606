# SPDX-License-Identifier: Apache-2.0
"""Takes the GPU code out of a library that clang compiled with ``--offload-compress``.

A library has one bundle for each translation unit: the letters CCOB, version 3, the method (1:
zstd), the compressed and the whole size, a hash, and the code objects of all architectures. A code
object is an ELF file, whose notes describe its kernels and their arguments in MessagePack.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import zstandard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: The type of the note with the metadata, and its owner's name.
METADATA = 32


class UnknownFormatError(ValueError):
    """A library or code object is not as this module expects it."""


@dataclass(frozen=True)
class CodeObject:
    """An architecture's code of one translation unit."""

    hash: int
    elf: bytes


def find_bundles(library: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the hash and the contents of each compressed bundle."""
    at = 0
    while (at := library.find(b"CCOB", at)) >= 0:
        version, method, size, whole, digest = struct.unpack_from("<HHQQQ", library, at + 4)
        if (version, method) != (3, 1) or at + size > len(library):
            at += 4  # the letters by chance
            continue
        inflate = zstandard.ZstdDecompressor()
        yield digest, inflate.decompress(library[at + 32 : at + size], max_output_size=whole)
        at += size


def find_code(library: Path, architecture: str) -> list[CodeObject]:
    """Return the architecture's code objects of a library."""
    found = []
    names = set()
    for digest, bundle in find_bundles(library.read_bytes()):
        if not bundle.startswith(b"__CLANG_OFFLOAD_BUNDLE__"):
            raise UnknownFormatError(f"{library}: a bundle does not begin as clang's do")
        (count,) = struct.unpack_from("<Q", bundle, 24)
        at = 32
        for _ in range(count):
            offset, size, length = struct.unpack_from("<QQQ", bundle, at)
            name = bundle[at + 24 : at + 24 + length].decode()
            at += 24 + length
            names.add(name.rpartition("-")[2])
            if name.endswith(f"-{architecture}"):
                found.append(CodeObject(digest, bundle[offset : offset + size]))
    if not found:
        listed = ", ".join(sorted(names - {""})) or "no code for GPUs"
        raise UnknownFormatError(f"{library} has {listed}, expected code for {architecture}")
    return found


def unpack(data: bytes, at: int = 0) -> tuple[Any, int]:
    """Decode the value of MessagePack at a place; return it and the place after it."""
    first = data[at]
    at += 1
    if first < 0x80:
        return first, at
    if first < 0x90:
        return unpack_map(data, at, first & 15)
    if first < 0xA0:
        return unpack_list(data, at, first & 15)
    if first < 0xC0:
        return data[at : at + (first & 31)].decode(), at + (first & 31)
    if first in (0xC2, 0xC3):
        return first == 0xC3, at
    if first in (0xCC, 0xCD, 0xCE, 0xCF):
        size = 1 << (first - 0xCC)
        return int.from_bytes(data[at : at + size], "big"), at + size
    if first in (0xD9, 0xDA, 0xDB):
        size = 1 << (first - 0xD9)
        length = int.from_bytes(data[at : at + size], "big")
        return data[at + size : at + size + length].decode(), at + size + length
    if first in (0xDC, 0xDD, 0xDE, 0xDF):
        size = 4 if first & 1 else 2
        length = int.from_bytes(data[at : at + size], "big")
        inside = unpack_list if first < 0xDE else unpack_map
        return inside(data, at + size, length)
    raise UnknownFormatError(f"the metadata has a value of the kind {first:#x}")


def unpack_list(data: bytes, at: int, length: int) -> tuple[list[Any], int]:
    values = []
    for _ in range(length):
        value, at = unpack(data, at)
        values.append(value)
    return values, at


def unpack_map(data: bytes, at: int, length: int) -> tuple[dict[Any, Any], int]:
    values = {}
    for _ in range(length):
        key, at = unpack(data, at)
        values[key], at = unpack(data, at)
    return values, at


def read_sections(elf: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield the type, the contents and the linked section's number of each section."""
    (start,) = struct.unpack_from("<Q", elf, 40)
    (count,) = struct.unpack_from("<H", elf, 60)
    for number in range(count):
        header = struct.unpack_from("<IIQQQQI", elf, start + 64 * number)
        yield header[1], elf[header[4] : header[4] + header[5]], header[6]


def read_symbols(elf: bytes) -> dict[str, int]:
    """Return the places of the dynamic symbols."""
    sections = list(read_sections(elf))
    found = {}
    for kind, contents, link in sections:
        if kind != 11:  # SHT_DYNSYM
            continue
        names = sections[link][1]
        for at in range(0, len(contents), 24):
            name, value = struct.unpack_from("<I4xQ", contents, at)
            found[names[name : names.index(b"\0", name)].decode()] = value
    return found


def read_kernels(elf: bytes) -> list[dict[str, Any]]:
    """Return the metadata of the kernels."""
    for kind, contents, _ in read_sections(elf):
        if kind != 7:  # SHT_NOTE
            continue
        name, size, note = struct.unpack_from("<III", contents)
        if note == METADATA and contents[12 : 12 + name] == b"AMDGPU\0":
            start = 12 + (name + 3) // 4 * 4
            metadata, _ = unpack(contents[start : start + size])
            kernels: list[dict[str, Any]] = metadata["amdhsa.kernels"]
            return kernels
    raise UnknownFormatError("a code object has no metadata")


def describe(code: CodeObject, path: Path) -> str:
    """Return the lines for ``gfx_runtime.cc`` about a code object, which is in a file."""
    symbols = read_symbols(code.elf)
    lines = [f"object {code.hash} {path}"]
    for kernel in read_kernels(code.elf):
        # Registers are given in blocks, of which the last may be larger than the kernel needs.
        vectors = kernel[".vgpr_count"] + kernel.get(".agpr_count", 0) + 8
        lines.append(f"kernel {kernel['.name']} {symbols[kernel['.symbol']]} {vectors}")
        lines += [
            f"argument {each['.offset']} {each['.size']} {each['.value_kind']}"
            for each in kernel.get(".args", [])
        ]
    return "\n".join(lines)
