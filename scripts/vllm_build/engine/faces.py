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
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    """

    thin: frozenset[str]
    ours: Mapping[str, str]
    alone: Mapping[str, str]


def read(root: Path) -> Faces:
    """Read the table of the tree.

    Raises:
        ConfigurationError: it is missing or malformed.
    """
    document = require_document(
        root / TABLE, "the table of files", remedy=f"correct {TABLE}", words=_WORDS
    )
    record = document.root
    return Faces(frozenset(record.texts("thin")), record.texts_by("ours"), record.texts_by("alone"))


def files_below(folder: Path) -> list[str]:
    """The files below ``folder`` without byte code, as sorted relative paths."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )


def _module_twins(mine: Collection[str], engine: Collection[str]) -> Iterable[str]:
    """Modules that one side has as a file and the other as a folder: Python imports the folder."""
    for ours, theirs in ((mine, engine), (engine, mine)):
        folders = {name.rpartition("/")[0] for name in theirs}
        for name in sorted(ours):
            stem = name.removesuffix(".py")
            if name.endswith(".py") and stem in folders:
                yield f"{name} and the folder {stem}/"


def clashes(mine: Collection[str], engine: Collection[str], faces: Faces) -> list[str]:
    """What the table does not explain, one line each; empty if the faces can be merged.

    Args:
        mine: our Python files, as in the thin face.
        engine: the engine's files.
        faces: the table.
    """
    mine, engine = set(mine) - set(GENERATED), set(engine) - set(GENERATED)
    found = [
        f"both have {name}, and {TABLE} does not say whose it is"
        for name in sorted((mine & engine) - faces.thin - set(faces.ours))
    ]
    found += [
        f"{name} is ours alone and outside {OURS}"
        for name in sorted(mine - engine - faces.thin - set(faces.ours) - set(faces.alone))
        if not name.startswith(OURS)
    ]
    found += [
        f"the engine has {name}, which is in our package"
        for name in sorted(engine)
        if name.startswith(OURS)
    ]
    for what, listed in (("thin", faces.thin), ("ours", faces.ours)):
        found += [
            f"{name} is in the list {what!r}, but the engine does not have it"
            for name in sorted(set(listed) - engine)
        ]
    found += [
        f"{name} is in the list 'alone', but the engine has it"
        for name in sorted(set(faces.alone) & engine)
    ]
    for what, listed in (("thin", faces.thin), ("ours", faces.ours), ("alone", faces.alone)):
        found += [
            f"{name} is in the list {what!r}, but this tree does not have it"
            for name in sorted(set(listed) - mine)
        ]
    found += [
        f"{twins}: Python would import only the folder"
        for twins in _module_twins(mine - faces.thin, engine)
    ]
    return found


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
        IntegrityError: the table does not explain a file that both have; nothing was copied.
        ResourceError: the disk is full.
    """
    faces = read(root)
    mine, theirs = python_files(place), [f"vllm/{name}" for name in files_below(engine.package)]
    if found := clashes(mine, theirs, faces):
        raise IntegrityError(
            f"vllm {engine.version} and the tree's modules cannot be merged:\n  "
            + "\n  ".join(found),
            expected=f"no other common files than those that {TABLE} lists",
            remedy=f"move our module below {OURS}, or list it with a reason",
        )
    copied = [name for name in theirs if name not in faces.ours and name not in GENERATED]
    with disk_errors(place):
        for name in copied:
            target = place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(engine.folder / name, target)
    return copied
