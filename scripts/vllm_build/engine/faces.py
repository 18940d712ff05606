# SPDX-License-Identifier: Apache-2.0
"""Merges the engine's files with ours: ``third_party/engine.toml`` says which file replaces which.

The package ``vllm`` has two faces. The thin one is the tree as it is. The other one is the engine
around our modules: every file of the engine, byte for byte, and over them ``vllm/_kernels``. A file
that both have stops the build, unless the table names it:

``thin``
    Our file exists for the thin face only. The engine's takes its place.
``ours``
    Our file takes the place of the engine's; the table gives the reason.
``alone``
    Our file next to the engine's that the engine does not have, with the reason.

The list ``absent`` is of :mod:`vllm_build.engine.engine_imports`.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vllm_build.kernels import kernels_table
from vllm_build.util.errors import IntegrityError
from vllm_build.util.files import disk_errors
from vllm_build.util.record_reader import require_document

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from vllm_build.engine.engine_source import Engine

TABLE = "third_party/engine.toml"
#: The package of ours that upstream does not have, and our generated files and libraries.
OURS = "vllm/_kernels/"
GENERATED = ("vllm/_version.py",)
#: A build with the engine writes these into our package, after the merge.
_WRITTEN = ("vllm/_kernels/_version.py", "vllm/_kernels/_engine.json")
#: The folder of the records of our libraries, which only a build of ours may write.
_RECORDS = "vllm/_build_info/"
#: Suffixes of compiled code. The engine is sources, and our libraries have these suffixes.
_COMPILED = (".so", ".pyc", ".pyd", ".dylib", ".dll", ".a", ".o")
_SHOWN = 20
_PATH = re.compile(r"vllm/(?!\.)[\w.-]+(?:/(?!\.)[\w.-]+)*")
_WORDS = {
    "record": "not a table",
    "missing": "{key!r} is missing",
    "text": "{key} = {value!r} is not a string",
}


@dataclass(frozen=True)
class Faces:
    """The table: paths below the folder that contains ``vllm``, with forward slashes.

    Attributes:
        thin: our files that the engine's replace.
        ours: our files that replace the engine's, with the reason.
        alone: our files outside ``vllm/_kernels`` that the engine does not have, with the reason.
        absent: modules that the engine imports and that are missing, with the reason.
    """

    thin: frozenset[str]
    ours: Mapping[str, str]
    alone: Mapping[str, str]
    absent: Mapping[str, str] = field(default_factory=dict)


def read(root: Path) -> Faces:
    """Read the table of the tree.

    Raises:
        ConfigurationError: it is missing or malformed.
    """
    document = require_document(
        root / TABLE, "the table of files", remedy=f"correct {TABLE}", words=_WORDS
    )
    record = document.root
    record.allow("schema", "thin", "ours", "alone", "absent")
    faces = Faces(
        frozenset(record.texts("thin", _PATH)),
        record.texts_by("ours"),
        record.texts_by("alone"),
        record.texts_by("absent"),
    )
    for key, table in (("ours", faces.ours), ("alone", faces.alone)):
        for name, reason in table.items():
            if not _PATH.fullmatch(name) or not reason.strip():
                record.fail(
                    name,
                    f"{name!r} = {reason!r} in [{key}] is not valid",
                    "a path below vllm/, and the reason",
                )
    names = [*faces.thin, *faces.ours, *faces.alone]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        record.fail(twice[0], f"{', '.join(twice)} are in two lists", "each file in one list")
    return faces


def files_below(folder: Path) -> list[str]:
    """The files below ``folder`` without byte code, as sorted relative paths."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )


def _folders(names: Iterable[str]) -> set[str]:
    """Every folder above one of the files."""
    return {
        "/".join(parts[:depth])
        for parts in (name.split("/") for name in names)
        for depth in range(1, len(parts))
    }


def _twins(mine: Collection[str], engine: Collection[str]) -> Iterable[str]:
    """Paths that are a file on one side and a folder on the other, and modules next to packages."""
    for ours, theirs in ((mine, engine), (engine, mine)):
        folders = _folders(theirs)
        for name in sorted(ours):
            stem = name.removesuffix(".py")
            if name in folders:
                yield f"{name} is a file and a folder"
            elif name.endswith(".py") and stem in folders:
                yield f"{name} and the folder {stem}/: Python would import only one of them"


def _spelled_alike(names: Collection[str]) -> Iterable[str]:
    """Files that are one file where the file system ignores case."""
    seen: dict[str, str] = {}
    for name in sorted(names):
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            yield f"{other} and {name} differ only in case"


def _not_sources(engine: Collection[str]) -> Iterable[str]:
    """What no source distribution of the engine has a reason to contain."""
    for name in sorted(engine):
        if name.startswith(OURS):
            yield f"the engine has {name}, which is in our package"
        elif name.startswith(_RECORDS):
            yield f"the engine has {name}, which would be a record of our libraries"
        elif name.endswith(_COMPILED) or re.search(r"\.so\.[0-9.]+$", name):
            yield f"the engine has {name}, which is compiled"


def clashes(
    mine: Collection[str], engine: Collection[str], faces: Faces, libraries: Collection[str] = ()
) -> list[str]:
    """What the table does not explain, one line each; empty if the faces can be merged.

    Args:
        mine: our Python files, as in the thin face.
        engine: the engine's files.
        faces: the table.
        libraries: the places of our libraries without their suffix, such as ``vllm/_C``.
    """
    mine, engine = set(mine) - set(GENERATED), set(engine) - set(GENERATED)
    lists = (("thin", faces.thin), ("ours", set(faces.ours)), ("alone", set(faces.alone)))
    listed = faces.thin | set(faces.ours)
    found = [
        f"both have {name}, and {TABLE} does not say whose it is"
        for name in sorted((mine & engine) - listed)
    ]
    found += [
        f"{name} is ours alone and outside {OURS}"
        for name in sorted(mine - engine - listed - set(faces.alone))
        if not name.startswith(OURS)
    ]
    found += _not_sources(engine)
    for what, names in lists[:2]:
        found += [
            f"{name} is in the list {what!r}, but the engine does not have it"
            for name in sorted(names - engine)
        ]
    found += [
        f"{name} is in the list 'alone', but the engine has it"
        for name in sorted(set(faces.alone) & engine)
    ]
    for what, names in lists:
        found += [
            f"{name} is in the list {what!r}, but this tree does not have it"
            for name in sorted(names - mine)
        ]
    found += _twins(mine - faces.thin, engine)
    found += _spelled_alike(engine | (mine - faces.thin))
    found += [
        f"the engine has {name}, which hides or is hidden by our library {place}"
        for place in sorted(libraries)
        for name in sorted(engine)
        if name == f"{place}.py" or name.startswith(f"{place}/")
    ]
    return found


def library_places(root: Path) -> list[str]:
    """The places of our libraries without their suffix, for every device.

    Raises:
        ConfigurationError: the table of kernels is malformed.
    """
    return [extension.name.replace(".", "/") for extension in kernels_table.load(root).extensions]


def python_files(root: Path) -> list[str]:
    """Our files that a wheel of the thin face contains, without libraries and records."""
    return [
        name
        for name in (f"vllm/{path}" for path in files_below(root / "vllm"))
        if not name.endswith(".so") and not name.startswith("vllm/_build_info/")
    ]


def merge(root: Path, engine: Engine, place: Path) -> list[str]:
    """Put the engine around our files in ``place``, a folder with the thin face.

    Returns:
        The paths of the engine's files in ``place``, relative to it.

    Raises:
        IntegrityError: the table does not explain a file that both have, or ``place`` has files of
            an earlier build; nothing was copied.
        ResourceError: the disk is full.
    """
    faces = read(root)
    theirs = [f"vllm/{name}" for name in files_below(engine.package)]
    present = set(python_files(place)) - set(_WRITTEN) - set(GENERATED)
    mine = {name for name in present if (root / name).is_file()}
    if found := clashes(mine, theirs, faces):
        more = [f"… and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        raise IntegrityError(
            f"vllm {engine.version} and the tree's modules cannot be merged:\n  "
            + "\n  ".join((*found[:_SHOWN], *more)),
            expected=f"no other common files than those that {TABLE} lists",
            remedy=f"move our module below {OURS}, or list it with a reason",
        )
    if left := sorted(present - mine - set(theirs)):
        raise IntegrityError(
            f"{place} has {len(left)} files of an earlier build, such as {left[0]}",
            expected="a folder with the modules of this tree",
            remedy="remove that folder, or build with pip, which takes a new one",
        )
    copied = [name for name in theirs if name not in faces.ours and name not in GENERATED]
    with disk_errors(place):
        for name in copied:
            target = place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(engine.folder / name, target)
    return copied
