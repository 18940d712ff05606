# SPDX-License-Identifier: Apache-2.0
"""What a release of the engine means for this tree: files, ops, schemas, requirements, licenses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet

from vllm_build.engine import (
    engine_imports,
    engine_requirements,
    engine_source,
    faces,
    op_calls,
    op_schemas,
)
from vllm_build.sources import third_party
from vllm_build.util.errors import IntegrityError
from vllm_build.util.files import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from vllm_build.engine.engine_source import Engine

RECIPE = "recipe/vllm/recipe.yaml"
LICENSES = "third_party/licenses/vllm"
#: Subject of a difference → what a person does about it.
REMEDIES: Mapping[str, str] = {
    "files": f"name the owner of each file in {faces.TABLE}, or move our module below {faces.OURS}",
    "imports": f"list each module with a reason under [absent] in {faces.TABLE}, or write it",
    "ops": f"list each op with a reason in {op_calls.TABLE}, remove it from there, or write the "
    "kernel",
    "schemas": "change the schema in csrc/bindings and the callers in vllm/_kernels/ops, or list "
    f"the op with a reason under [[spelled]] in {op_calls.TABLE}",
    "requirements": f"change {engine_requirements.TABLE}, and then the run requirements and "
    f"constraints in {RECIPE}",
    "metadata": f"change {RECIPE}, or the interpreter of the variants",
    "licenses": f"read each text, copy it to {LICENSES}, and name it in {third_party.LOCK}",
    "wheels": "change the versions in toolchain/wheels.toml, then run make toolchain-update",
}
_VARIANT_PYTHON = re.compile(r'^python:\n(?:[ \t]*#.*\n)*[ \t]*- "([0-9.]+)"', re.MULTILINE)
_OWN_MODULES = "vllm._kernels."
_LICENSE = re.compile(r"SPDX-License-Identifier:[ \t]*([^\r\n]+)")
_LICENSE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
_OPERATORS = frozenset({"AND", "OR", "WITH"})
#: Names of files with a license, or with notices that a license wants to be kept.
_TEXTS = re.compile(r"(LICEN[CS]E|COPYING|NOTICE)(?![a-z]).*", re.IGNORECASE)
_HEAD = 2000
#: Licenses that the lock names for the engine.
KNOWN_LICENSES = frozenset({"Apache-2.0", "BSD-3-Clause", "MIT"})


def requirement_differences(root: Path, engine: Engine) -> list[str]:
    """How the engine's requirements differ from our table, one line each.

    Raises:
        ConfigurationError: our table is malformed.
        IntegrityError: a file of the engine's is missing or malformed.
    """
    table, found = engine_requirements.read(root), []
    for file in (engine_requirements.COMMON, *engine_requirements.DEVICES):
        path = engine.folder / "requirements" / f"{file}.txt"
        try:
            text = read_text(path)
        except (OSError, UnicodeDecodeError) as error:
            raise IntegrityError(
                f"{path} cannot be read: {error}", expected="the engine's requirements"
            ) from error
        upstream = engine_requirements.of_upstream(text, file)
        found += engine_requirements.differences(table, upstream, file)
    return found


def metadata_differences(root: Path, engine: Engine) -> list[str]:
    """Commands and interpreters of the engine that the recipe does not repeat, one line each.

    Raises:
        IntegrityError: the engine's project file is malformed.
    """
    written = [line.strip() for line in read_text(root / RECIPE).splitlines()]
    metadata = engine_source.metadata(engine)
    commands = {
        entry[1]: entry[2]
        for line in written
        if (entry := re.fullmatch(r"- ([\w.-]+) = ([\w.]+:[\w.]+)", line))
    }
    found = [
        f"the engine has the command {name} = {place}, {RECIPE} has "
        f"{f'{name} = {commands[name]}' if name in commands else 'none of that name'}"
        for name, place in metadata.scripts.items()
        # Ours may call the engine's.
        if commands.get(name) != place and not commands.get(name, "").startswith(_OWN_MODULES)
    ]
    found += [
        f"{RECIPE} has the command {name} = {place}, the engine has none of that name"
        for name, place in commands.items()
        if name not in metadata.scripts
    ]
    pythons = [
        line.removeprefix("- python ") for line in written if re.match(r"- python [<>=!~]", line)
    ]
    if [SpecifierSet(text) for text in pythons] != [SpecifierSet(metadata.requires_python)]:
        found.append(
            f"the engine supports Python {metadata.requires_python}, {RECIPE} has "
            f"{', '.join(pythons) or 'none'}"
        )
    # The package's own tests run the engine with the interpreter of the variant.
    for path in sorted((root / "variants").glob("*.yaml")):
        chosen = _VARIANT_PYTHON.findall(read_text(path))
        if not chosen or not SpecifierSet(metadata.requires_python).contains(chosen[0]):
            found.append(
                f"the engine supports Python {metadata.requires_python}, variants/{path.name} has "
                f"{', '.join(chosen) or 'none'}"
            )
    return found


def _named_licenses(engine: Engine) -> Iterator[tuple[str, str]]:
    """The name of each license in the heads of the engine's files, with the file."""
    for name in faces.files_below(engine.package):
        with (engine.package / name).open("rb") as stream:
            head = stream.read(_HEAD).decode("utf-8", errors="replace")
        for expression in _LICENSE.findall(head):
            # A comment may end behind the expression, or go on with words.
            words = _LICENSE_NAME.findall(expression.split("*/")[0].split("-->")[0])
            for word in words:
                if word not in _OPERATORS:
                    yield word, name


def license_differences(root: Path, engine: Engine) -> list[str]:
    """License texts of the engine that the tree lacks, and unknown licenses of its files."""
    folder = root / LICENSES
    ours = {path.read_bytes() for path in folder.iterdir() if path.is_file()}
    texts = [
        engine.folder / "LICENSE",
        *(
            engine.package / name
            for name in faces.files_below(engine.package)
            if _TEXTS.fullmatch(name.rpartition("/")[2])
        ),
    ]
    found = [
        f"{path.relative_to(engine.folder)} is in none of the texts in {LICENSES}"
        for path in texts
        if not path.is_file() or path.read_bytes() not in ours
    ]
    named: dict[str, str] = {}
    for license_, name in _named_licenses(engine):
        named.setdefault(license_, name)
    found += [
        f"{name} has the license {license_}"
        for license_, name in sorted(named.items())
        if license_ not in KNOWN_LICENSES
    ]
    return found


def review(root: Path, engine: Engine, archive: Path) -> dict[str, list[str]]:
    """Every difference that a person must look at, by subject.

    Args:
        root: the source tree.
        engine: its engine.
        archive: the engine's source distribution, for the C++ sources, which are not extracted.

    Raises:
        ConfigurationError: one of the tables is malformed.
        IntegrityError: the engine is not as this library expects it.
    """
    theirs = [f"vllm/{name}" for name in faces.files_below(engine.package)]
    present = op_calls.registered(root)
    return {
        "files": faces.clashes(
            faces.python_files(root), theirs, faces.read(root), faces.library_places(root)
        ),
        "imports": engine_imports.differences(
            engine_imports.imported(engine.package),
            [*theirs, *faces.python_files(root)],
            faces.library_places(root),
            faces.read(root).absent,
        ),
        "ops": [
            *op_calls.hidden(engine.package),
            *op_calls.unexplained(op_calls.calls(engine.package), present, op_calls.read(root)),
        ],
        "schemas": op_schemas.differences(
            op_schemas.registered(root),
            op_schemas.of_archive(archive),
            op_calls.by_device(op_calls.read(root, "spelled")),
        ),
        "requirements": requirement_differences(root, engine),
        "metadata": metadata_differences(root, engine),
        "licenses": license_differences(root, engine),
    }
