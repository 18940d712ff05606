# SPDX-License-Identifier: Apache-2.0
"""What upstream's CMakeLists.txt builds for CUDA: sources, architectures, options and macros.

``tests/data/upstream_build.cmake`` runs that file as a script, which compiles nothing.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "data" / "upstream_build.cmake"
_GENCODE = re.compile(r"arch=compute_\w+,code=(\w+)>")
_OPTION = re.compile(r"--(?:use_fast_math|fmad=\w+)|-static-global-template-stub=\w+")


@dataclass
class Unit:
    """One source, or a pattern of sources that a program writes.

    Attributes:
        archs: values of nvcc's ``code=``.
        options: further options of its own.
    """

    archs: set[str] = field(default_factory=set)
    options: set[str] = field(default_factory=set)


@dataclass
class Library:
    """One library: its units by source, and the macros that switch parts of it on."""

    units: dict[str, Unit] = field(default_factory=dict)
    macros: set[str] = field(default_factory=set)


def build(folder: Path, toolkit: str, archs: str, scratch: Path) -> dict[str, Library]:
    """The libraries that upstream would build, by name.

    Args:
        folder: upstream's sources.
        toolkit: release of CUDA.
        archs: architectures in nvcc's spelling without PTX, separated by semicolons.
        scratch: a folder for the script's answer.
    """
    trace = scratch / "trace"
    command = [
        *(str(Path(sys.executable).with_name("cmake")), f"-DSOURCE={folder}"),
        *(f"-DTOOLKIT={toolkit}", f"-DARCHS={archs}", f"-DTRACE={trace}", "-P", str(SCRIPT)),
    ]
    subprocess.run(command, check=True, cwd=scratch)
    found: dict[str, Library] = {}
    units: dict[str, Unit] = {}
    for line in trace.read_text(encoding="utf-8").splitlines():
        kind, *words = line.split("\t")
        if kind == "source":
            library = found.setdefault(words[0], Library())
            library.units[words[1]] = units.setdefault(words[1], Unit())
        elif kind in ("flags", "definition"):
            library = found.setdefault(words[0], Library())
            library.macros |= {word.removeprefix("-D") for word in words[1:] if "ENABLE_" in word}
        elif kind == "property":
            _read_property(words, units)
    return found


def _read_property(words: list[str], units: dict[str, Unit]) -> None:
    """Read the arguments of set_property(SOURCE) or of set_source_files_properties."""
    end = next(i for i, word in enumerate(words) if word in ("APPEND", "PROPERTY", "PROPERTIES"))
    sources = [source for word in words[:end] if word != "SOURCE" for source in word.split(";")]
    text = " ".join(words[end:])
    for source in sources:
        unit = units.setdefault(source, Unit())
        unit.archs.update(_GENCODE.findall(text))
        unit.options.update(_OPTION.findall(text))
