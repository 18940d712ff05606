# SPDX-License-Identifier: Apache-2.0
"""Writes the sources of stand-ins for CUDA's libraries, in which every function returns an error.

usage: stand_ins.py OUTPUT LIBRARY...

PyPI has PyTorch for Linux only as a CUDA build. Its libraries need CUDA's libraries when they are
loaded, even on a machine without a GPU. This script reads from LIBRARY... the symbols that they
need from CUDA's libraries. For each CUDA library it writes a C source file and a linker version
script to OUTPUT. ``OUTPUT/names`` lists the libraries. No file of NVIDIA is read or copied.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from elftools.elf.elffile import ELFFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

#: Libraries that get a stand-in.
CUDA = re.compile(r"lib(cu|nv|nccl)\w*\.so\.\d+")
#: Libraries of the channel and the machine, which need no stand-in.
PRESENT = re.compile(r"(lib(c|dl|m|pthread|rt|gcc_s|gomp|stdc\+\+)|ld-linux[\w-]*)\.so\.\d+")
#: The returned status. 35 is cudaErrorInsufficientDriver, for which PyTorch reports "Found no
#: NVIDIA driver"; for all other libraries it is 1, which is an error in each of them.
STATUS = {"libcudart": 35}
#: Functions that return the text of an error. Callers print it, so they must not get a number,
#: which would be used as an address.
TEXT = re.compile(r"\w+Get(Error|Status)(String|Name)|ncclGetLastError")
#: Functions that store the address of the text through their second argument, and functions that
#: copy the text to the address in their first argument.
STORED_TEXT = re.compile(r"\w+GetResultString")
COPIED_TEXT = re.compile(r"\w+GetLastErrorString")
MESSAGE = "this PyTorch is for CPUs: its CUDA libraries are stand-ins"


@dataclass(frozen=True)
class Wanted:
    """A symbol that a library needs from another one.

    Attributes:
        name: the symbol.
        version: its version; empty if the linker recorded none.
        library: the library that has it; empty if the linker recorded none.
    """

    name: str
    version: str
    library: str


@dataclass(frozen=True)
class Library:
    """One of PyTorch's libraries.

    Attributes:
        name: the file name.
        needed: the names in DT_NEEDED.
        defined: the symbols that it defines.
        wanted: the symbols without which it cannot be loaded.
    """

    name: str
    needed: tuple[str, ...]
    defined: frozenset[str]
    wanted: tuple[Wanted, ...]


def read(path: Path) -> Library:
    """Read the dynamic section, the dynamic symbols and their versions."""
    with path.open("rb") as stream:
        elf: Any = ELFFile(stream)
        needed = [
            tag.needed
            for tag in elf.get_section_by_name(".dynamic").iter_tags()
            if tag.entry.d_tag == "DT_NEEDED"
        ]
        indices = elf.get_section_by_name(".gnu.version")
        versions = {
            auxiliary["vna_other"]: (entry.name, auxiliary.name)
            for entry, auxiliaries in (elf.get_section_by_name(".gnu.version_r").iter_versions())
            for auxiliary in auxiliaries
        }
        defined, wanted = set(), []
        for number, symbol in enumerate(elf.get_section_by_name(".dynsym").iter_symbols()):
            if symbol["st_shndx"] != "SHN_UNDEF":
                defined.add(symbol.name)
            elif symbol.name and symbol["st_info"]["bind"] == "STB_GLOBAL":
                index = indices.get_symbol(number)["ndx"]
                library, version = (
                    versions.get(index, ("", "")) if isinstance(index, int) else ("", "")
                )
                wanted.append(Wanted(symbol.name, version, library))
    return Library(path.name, tuple(needed), frozenset(defined), tuple(wanted))


def provider(symbol: str, names: Iterable[str]) -> str:
    """Find the library among ``names`` that a symbol without a version belongs to.

    ``ncclSend`` belongs to ``libnccl.so.2``. The longest match wins. The result is empty if there
    is none; the package's tests bind all symbols at load, so they find symbols that no library
    defines.
    """
    stems = {name.removeprefix("lib").partition(".")[0].lower(): name for name in names}
    return next(
        (
            stems[stem]
            for stem in sorted(stems, key=len, reverse=True)
            if symbol.lower().startswith(stem)
        ),
        "",
    )


def assign(libraries: Sequence[Library]) -> dict[str, dict[str, str]]:
    """Map each CUDA library that ``libraries`` need to its symbols and their versions.

    Raises:
        ValueError: a needed library is unknown, or a symbol is needed in two versions.
    """
    own = {library.name for library in libraries}
    needed = {name for library in libraries for name in library.needed} - own
    unknown = sorted(
        name for name in needed if not CUDA.fullmatch(name) and not PRESENT.fullmatch(name)
    )
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: neither a CUDA library nor one that every environment has"
        )
    defined = frozenset().union(*(library.defined for library in libraries))
    found: dict[str, dict[str, str]] = {name: {} for name in sorted(needed) if CUDA.fullmatch(name)}
    for wanted in sorted(
        {wanted for library in libraries for wanted in library.wanted},
        key=lambda w: (w.name, w.version),
    ):
        if wanted.library:
            name = wanted.library if wanted.library in found else ""
        else:
            name = "" if wanted.name in defined else provider(wanted.name, found)
        if not name:
            continue
        if found[name].setdefault(wanted.name, wanted.version) != wanted.version:
            raise ValueError(f"{wanted.name} of {name} is needed in two versions")
    return found


def source(name: str, symbols: Iterable[str]) -> str:
    """Return C code that defines ``symbols`` for the library ``name``."""
    status = STATUS.get(name.partition(".")[0], 1)
    lines = [f'__attribute__((unused)) static const char message[] = "{MESSAGE}";']
    for symbol in symbols:
        if STORED_TEXT.fullmatch(symbol):
            body = (
                f"int {symbol}(int status, const char **text) {{ (void)status; *text = message; "
                "return 0; }"
            )
        elif COPIED_TEXT.fullmatch(symbol):
            body = (
                f"void {symbol}(char *text, unsigned long size) {{ for (unsigned long i = 0; i "
                "< size; ++i) text[i] = 0; }"
            )
        elif TEXT.fullmatch(symbol):
            body = f"const char *{symbol}(void) {{ return message; }}"
        else:
            # long is as wide as a pointer or a size, so the caller may have declared any of them.
            body = f"long {symbol}(void) {{ return {status}; }}"
        lines.append(body)
    return "\n".join(lines) + "\n"


def version_script(symbols: Mapping[str, str]) -> str:
    """Return a linker script that gives each symbol its version; empty if no symbol has one.

    Symbols without a version get the first version, because a reference without one accepts any.
    """
    nodes = sorted({version for version in symbols.values() if version})
    lines = []
    for node in nodes:
        names = [
            symbol
            for symbol, version in symbols.items()
            if version == node or (not version and node == nodes[0])
        ]
        lines += [
            f"{node} {{",
            "global:",
            *(f"    {symbol};" for symbol in names),
            *(["local: *;"] if node == nodes[0] else []),
            "};",
        ]
    return "\n".join(lines) + "\n" if lines else ""


def main() -> None:
    """Write the sources, the version scripts and the list."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("libraries", nargs="+", type=Path)
    options = parser.parse_args()
    try:
        found = assign([read(path) for path in options.libraries])
    except ValueError as error:
        sys.exit(str(error))
    options.output.mkdir(parents=True)
    for name, symbols in found.items():
        (options.output / f"{name}.c").write_text(source(name, symbols), encoding="utf-8")
        (options.output / f"{name}.map").write_text(version_script(symbols), encoding="utf-8")
        print(f"{name}: {len(symbols)} functions")
    (options.output / "names").write_text("".join(f"{name}\n" for name in found), encoding="utf-8")


if __name__ == "__main__":
    main()
