# SPDX-License-Identifier: Apache-2.0
"""Only one module reads the environment; the others get values or arguments from it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "scripts" / "vllm_build"
#: The names of the environment in ``os``.
NAMES = frozenset({"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"})

#: The modules that use these names, and why.
READERS = {
    "util/environ.py": "reads it for all others",
    "native/compile_launcher.py": (
        "a program that runs each compiler and passes its environment on; it has to start fast"
    ),
    "toolchain/sdist_backend/sitecustomize.py": "a module of pip's process, which it configures",
    "util/processes/pip_process.py": "a program that runs before anything is installed",
}
#: The modules that may take a snapshot, and why.
SNAPSHOTS = {
    "setup.py": "an entry point",
    "cmake/find_inputs.py": "an entry point",
    "scripts/vllm_build/backend.py": "an entry point: the front end calls its hooks",
    "scripts/vllm_build/cli.py": "an entry point",
    "scripts/vllm_build/wheels/cmake_ext.py": (
        "an entry point if the setup.py of another project creates the extension"
    ),
    "scripts/vllm_build/conda/environments/install_child.py": (
        "an entry point: a program that conda_environment starts"
    ),
    "scripts/vllm_build/toolchain/second_child.py": (
        "an entry point: a program that second_builder starts"
    ),
}
#: The modules that may ask for the folders of this process's user, and why.
PLACES = {
    "scripts/vllm_build/util/paths.py": "for callers that are not given ``Places`` yet",
}


def modules() -> dict[str, ast.Module]:
    files = [*LIBRARY.rglob("*.py"), *(ROOT / "cmake").rglob("*.py"), ROOT / "setup.py"]
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in files
    }


def named(tree: ast.AST) -> list[str]:
    """Each expression that reads or writes the environment, with its line."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            base, name = node.value.id, node.attr
            if (base in ("os", "posix") and name in NAMES) or (base, name) == (
                "path",
                "expandvars",
            ):
                found.append(f"{node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "os.path.expandvars":
            found.append(f"{node.lineno}: os.path.expandvars")
        elif isinstance(node, ast.ImportFrom) and node.module in ("os", "posix"):
            found += [
                f"{node.lineno}: from {node.module} import {alias.name}"
                for alias in node.names
                if alias.name in NAMES
            ]
        elif isinstance(node, ast.Import):
            # `import os as …` would hide the name.
            found += [
                f"{node.lineno}: import os as {alias.asname}"
                for alias in node.names
                if alias.name == "os" and alias.asname
            ]
    return found


def snapshots(tree: ast.AST) -> list[int]:
    """The lines that take a snapshot."""
    return lines_that_call(tree, "snapshot")


def lines_that_call(tree: ast.AST, name: str) -> list[int]:
    """The lines that call the function or method ``name``."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if ast.unparse(call.func).rpartition(".")[2] == name]


def test_one_module_reads_the_environment() -> None:
    found = {name: places for name, tree in modules().items() if (places := named(tree))}
    assert set(found) == {f"scripts/vllm_build/{name}" for name in READERS}, found


def test_entry_points_take_the_snapshot() -> None:
    found = {name: lines for name, tree in modules().items() if (lines := snapshots(tree))}
    assert set(found) == set(SNAPSHOTS), found


def test_few_modules_ask_for_the_places_of_this_process() -> None:
    found = {name for name, tree in modules().items() if lines_that_call(tree, "places")}
    assert found == set(PLACES)


@pytest.mark.parametrize(
    "text",
    [
        "import os\nx = os.environ['HOME']",
        "import os\nos.environ.update(a='b')",
        "import os\nx = os.getenv('HOME')",
        "import os\nx = os.environb",
        "import os\nos.putenv('A', 'b')",
        "from os import environ",
        "from os import getenv as g",
        "import os as system",
        "import os\nx = os.path.expandvars('$HOME')",
        "from os import path\nx = path.expandvars('$HOME')",
    ],
)
def test_every_spelling_is_found(text: str) -> None:
    assert named(ast.parse(text))


def test_others_are_not() -> None:
    assert not named(
        ast.parse(
            "import os\nfrom vllm_build.util import environ\nx = environ.snapshot()\n"
            "y = os.path.join('a', os.sep)"
        )
    )
