# SPDX-License-Identifier: Apache-2.0
"""The environment is read in one place, and handed on from there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "scripts" / "vllm_build"
#: What names the environment, in ``os`` and by import from it.
NAMES = frozenset({"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"})

#: Modules that name it, and why.
READERS = {
    "util/environ.py": "the one place",
    "native/compile_launcher.py": (
        "a program of its own in front of each compiler, which hands its "
        "environment on; it has to start fast"
    ),
    "util/processes/pip_process.py": (
        "a program of its own, which runs before anything is installed"
    ),
}
#: Who may take a snapshot, and why.
SNAPSHOTS = {
    "setup.py": "an entry point",
    "cmake/find_inputs.py": "an entry point",
    "scripts/vllm_build/backend.py": "an entry point: the front end calls its hooks",
    "scripts/vllm_build/cli.py": "an entry point",
    "scripts/vllm_build/wheels/cmake_ext.py": (
        "an entry point, where a setup.py of somebody else's makes the extension"
    ),
    "scripts/vllm_build/conda/environments/install_child.py": (
        "an entry point: a program that conda_environment starts"
    ),
    # These get what they read from no caller yet.
    "scripts/vllm_build/util/paths.py": "the folders of the cache and the home folder",
    "scripts/vllm_build/reuse/net/login.py": "the place of netrc",
    "scripts/vllm_build/toolchain/apt.py": "apt starts from the caller's variables",
    "scripts/vllm_build/toolchain/channel_build.py": (
        "builds of the channel start from the caller's variables"
    ),
    "scripts/vllm_build/toolchain/pypi.py": "pip's way to its index",
}


def modules() -> dict[str, ast.Module]:
    files = [*LIBRARY.rglob("*.py"), *(ROOT / "cmake").rglob("*.py"), ROOT / "setup.py"]
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in files
    }


def named(tree: ast.AST) -> list[str]:
    """Each place that reads or writes the environment, by its line and what stands there."""
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
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        call.lineno for call in calls if ast.unparse(call.func).rpartition(".")[2] == "snapshot"
    ]


def test_one_module_reads_the_environment() -> None:
    found = {name: places for name, tree in modules().items() if (places := named(tree))}
    assert set(found) == {f"scripts/vllm_build/{name}" for name in READERS}, found


def test_entry_points_take_the_snapshot() -> None:
    found = {name: lines for name, tree in modules().items() if (lines := snapshots(tree))}
    assert set(found) == set(SNAPSHOTS), found


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
