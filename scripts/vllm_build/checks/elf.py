# SPDX-License-Identifier: Apache-2.0
"""Reads the dependencies and undefined symbols of an ELF shared library.

The code follows the gABI and the LSB's chapter about symbol versioning. It does not use pyelftools,
because the checks after linking run in every build, also in the isolated environments of pip and
the recipe, and must not need another package.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_build.util.errors import BuildError
from vllm_build.util.files import NotRegularError, TooLargeError, open_regular, read_bytes

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC = b"\x7fELF"
#: Size limit of a library, which is read at once; far above any real one.
_LARGEST = 4 << 30
_STRTAB_LINKED = {"dynsym": 11, "dynamic": 6, "verneed": 0x6FFFFFFE, "versym": 0x6FFFFFFF}
_DT_NEEDED, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 14, 15, 29
_SHN_UNDEF, _STB_WEAK, _VERSION_MASK = 0, 2, 0x7FFF


@dataclass(frozen=True)
class Symbol:
    """A symbol that another library must provide.

    Attributes:
        name: the mangled name in the symbol table.
        version: such as ``GLIBC_2.29``; empty if the symbol has none.
        library: the library that the linker recorded as the provider of that version; empty without
            a version.
        weak: whether the library loads without it.
    """

    name: str
    version: str
    library: str
    weak: bool


@dataclass(frozen=True)
class SharedLibrary:
    """The requirements of one ELF file.

    Attributes:
        needed: DT_NEEDED, in order.
        soname: DT_SONAME, or empty.
        runpath: DT_RPATH and DT_RUNPATH, split at colons.
        undefined: symbols that other libraries must provide, sorted by name.
        versions: (library, version) pairs of the version requirements.
        comment: the identification of the compilers (section ``.comment``).
    """

    needed: tuple[str, ...]
    soname: str
    runpath: tuple[str, ...]
    undefined: tuple[Symbol, ...]
    versions: tuple[tuple[str, str], ...]
    comment: str


@dataclass(frozen=True)
class _Section:
    name: str
    type: int
    offset: int
    size: int
    link: int
    info: int


def is_elf(path: Path) -> bool:
    """Whether the file begins with the magic bytes of ELF. A Mach-O library does not."""
    with open_regular(path) as stream:
        return stream.read(len(_MAGIC)) == _MAGIC


class _Reader:
    """Sections and tables of one 64-bit file; ``struct`` checks the bounds of every read."""

    def __init__(self, data: bytes) -> None:
        if data[:4] != _MAGIC or len(data) < 64 or data[4] != 2 or data[5] not in (1, 2):  # noqa: PLR2004 - sizes and values of the gABI
            raise ValueError("not a 64-bit ELF file")
        self.data, self.order = data, "<" if data[5] == 1 else ">"
        (start,) = self.at("Q", 0x28)
        size, count, names = self.at("3H", 0x3A)
        raw = [self.at("2I4Q2I", start + index * size) for index in range(count)]
        if count and names >= count:
            raise ValueError("the table of section names does not exist")
        strings = raw[names] if count else None
        self.sections = [
            _Section(
                self.text(strings[4] + r[0]) if strings else "",
                r[1],
                offset=r[4],
                size=r[5],
                link=r[6],
                info=r[7],
            )
            for r in raw
        ]

    def at(self, layout: str, offset: int) -> tuple[int, ...]:
        return struct.unpack_from(self.order + layout, self.data, offset)

    def text(self, offset: int) -> str:
        end = self.data.find(b"\0", offset)
        if not 0 <= offset <= end:
            raise ValueError("a name lies outside the file")
        return self.data[offset:end].decode("utf-8", errors="replace")

    def section(self, kind: str) -> _Section | None:
        return next((s for s in self.sections if s.type == _STRTAB_LINKED[kind]), None)

    def linked_text(self, section: _Section, offset: int) -> str:
        if section.link >= len(self.sections):
            raise ValueError("a section is linked to one that does not exist")
        return self.text(self.sections[section.link].offset + offset)

    def dynamic(self) -> list[tuple[int, int]]:
        section = self.section("dynamic")
        if section is None:
            return []
        pairs = [self.at("2Q", section.offset + at) for at in range(0, section.size - 15, 16)]
        return [(tag, value) for tag, value in pairs]

    def strings(self, tag: int) -> tuple[str, ...]:
        section = self.section("dynamic")
        return (
            tuple(
                self.linked_text(section, value) for found, value in self.dynamic() if found == tag
            )
            if section
            else ()
        )

    def version_names(self) -> dict[int, tuple[str, str]]:
        """Index in the version table -> (library, version)."""
        section, found = self.section("verneed"), {}
        if section is None:
            return {}
        entry = section.offset
        for _ in range(section.info):
            _, count, library, aux, following = self.at("2H3I", entry)
            item = entry + aux
            for _ in range(count):
                _, _, index, name, next_item = self.at("I2H2I", item)
                found[index & _VERSION_MASK] = (
                    self.linked_text(section, library),
                    self.linked_text(section, name),
                )
                if not next_item:  # marks the last item; the count may be damaged
                    break
                item += next_item
            if not following:
                break
            entry += following
        return found

    def undefined(self) -> list[Symbol]:
        section, versym, names = (
            self.section("dynsym"),
            self.section("versym"),
            self.version_names(),
        )
        if section is None:
            return []
        symbols = []
        for index in range(1, section.size // 24):
            name, info, _, place = self.at("I2BH", section.offset + index * 24)
            if place != _SHN_UNDEF:
                continue
            number = self.at("H", versym.offset + 2 * index)[0] & _VERSION_MASK if versym else 0
            library, version = names.get(number, ("", ""))
            symbols.append(
                Symbol(
                    self.linked_text(section, name), version, library, weak=info >> 4 == _STB_WEAK
                )
            )
        return symbols

    def comment(self) -> str:
        section = next((s for s in self.sections if s.name == ".comment"), None)
        data = self.data[section.offset : section.offset + section.size] if section else b""
        return data.replace(b"\0", b" ").decode(errors="replace").strip()


def parse(data: bytes, what: object) -> SharedLibrary:
    """Read the content of a file; ``what`` names it in messages.

    Raises:
        BuildError: it is not a well-formed 64-bit ELF file.
    """
    try:
        reader = _Reader(data)
        return SharedLibrary(
            needed=reader.strings(_DT_NEEDED),
            soname=next(iter(reader.strings(_DT_SONAME)), ""),
            runpath=tuple(
                p
                for text in (*reader.strings(_DT_RPATH), *reader.strings(_DT_RUNPATH))
                for p in text.split(":")
            ),
            undefined=tuple(sorted(reader.undefined(), key=lambda symbol: symbol.name)),
            versions=tuple(dict.fromkeys(reader.version_names().values())),
            comment=reader.comment(),
        )
    except (ValueError, OverflowError, struct.error) as error:
        raise _invalid(what, error) from error


def _invalid(what: object, error: Exception) -> BuildError:
    return BuildError(
        f"{what} is not a valid library: {error}",
        expected="a complete 64-bit ELF file",
        remedy="remove it and build again; a full disk or a killed linker leaves such files",
    )


def read(path: Path) -> SharedLibrary:
    """Read the file at ``path``.

    Raises:
        BuildError: it is not a well-formed 64-bit ELF file.
    """
    try:
        data = read_bytes(path, _LARGEST)
    except (NotRegularError, TooLargeError) as error:
        raise _invalid(path, error) from error
    return parse(data, path)
