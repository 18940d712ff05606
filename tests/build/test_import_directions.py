# SPDX-License-Identifier: Apache-2.0
"""The packages of the build library have an order: a package imports only from earlier ones.

The test also sees imports inside functions and under TYPE_CHECKING, because these are dependencies,
too.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from vllm_build.util import paths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIBRARY = paths.library_folder() / "vllm_build"
#: Lowest floor first.
FLOORS = (
    "util",
    "util.processes",
    "architectures",
    "settings",
    "target.toolkits",
    "target",
    "project",
    "kernels",
    "sources",
    "engine",
    "digests",
    "checks",
    "native",
    "reuse.records",
    "reuse.net",
    "reuse.archives",
    "reuse.stores",
    "reuse.lookup",
    "reuse.foreign",
    "reuse",
    "wheels",
    "packing",
    "toolchain",
    "conda.environments",
    "conda",
    "doctor",
    "commands",
    "commands.packages",
    "commands.precompiled",
    "commands.explain",
    "",  # entry points: __main__, entry, cli, backend
)
#: The most lines that a module may have. Split longer modules.
LONGEST = 350
#: Data that pip loads by path, under the names that pip asks for.
OUTSIDE = "toolchain/sdist_backend/"
#: A package and the command that it implements share a name: to readers, they are one thing.
SHARED = {"doctor", "engine", "reuse", "settings", "toolchain"}


def modules() -> dict[str, Path]:
    """Dotted name below vllm_build -> file."""
    files = [
        path
        for path in sorted(LIBRARY.rglob("*.py"))
        if not path.relative_to(LIBRARY).as_posix().startswith(OUTSIDE)
    ]
    return {
        ".".join(path.relative_to(LIBRARY).with_suffix("").parts)
        .removesuffix("__init__")
        .rstrip("."): path
        for path in files
    }


MODULES = modules()


def package_of(module: str) -> str:
    """The package that holds a module; a package's ``__init__`` belongs to it."""
    if MODULES[module].name == "__init__.py":
        return module
    return module.rpartition(".")[0]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of each import from this library."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").partition(".")[0] == "vllm_build"
        ):
            base = (node.module or "").partition(".")[2]
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                yield node.lineno, inner if inner in MODULES else base
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "vllm_build":
                    yield node.lineno, alias.name.partition(".")[2]


def test_every_package_has_a_floor() -> None:
    assert {package_of(module) for module in MODULES} == set(FLOORS)


def test_the_architecture_lists_the_packages_by_floor(root: Path) -> None:
    page = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `scripts/vllm_build/([\w/]*)` \|", page, re.MULTILINE)
    assert [row.strip("/").replace("/", ".") for row in rows] == list(FLOORS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_lead_down(module: str) -> None:
    floor = FLOORS.index(package_of(module))
    for line, target in imports(MODULES[module]):
        assert target in MODULES, (
            f"{MODULES[module]}:{line}: no module of the library is named {target}"
        )
        assert FLOORS.index(package_of(target)) <= floor, (
            f"{MODULES[module]}:{line}: {target} lies on a higher floor"
        )


def test_groups_import_one_way() -> None:
    """No cycle among the top-level packages, each taken with its sub-packages."""
    edges: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        group = module.partition(".")[0] if "." in module else package_of(module)
        edges.setdefault(group, set()).update(
            {
                target.partition(".")[0] if "." in target else package_of(target)
                for _, target in imports(path)
            }
        )
    entry = edges.pop("")
    assert entry
    while edges:
        free = {group for group, targets in edges.items() if not (targets - {group}) & edges.keys()}
        assert free, f"a cycle among {sorted(edges)}"
        edges = {group: targets for group, targets in edges.items() if group not in free}


def test_names_are_unique() -> None:
    """A module's name alone identifies it."""
    names = Counter(module.rpartition(".")[2] for module in MODULES if module)
    assert {name for name, count in names.items() if count > 1} <= SHARED


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_short(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= LONGEST
