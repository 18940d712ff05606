# SPDX-License-Identifier: Apache-2.0
"""A developer's machine for real builds: compiler, ccache, CMake, torch from the toolchain channel; pip as this machine configures it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import tomlkit
from developer import Developer, make

from vllm_build.util import paths

if TYPE_CHECKING:
    from pathlib import Path

ROOT = paths.source_root()
#: What builds, tests and people leave in a tree; a clone has none of it.
NOT_IN_A_CLONE = (
    ".git",
    ".venv",
    "output",
    "build",
    "dist",
    "results",
    "__pycache__",
    "*.so",
    "*.egg-info",
    "_version.py",
    "_build_info",
    ".*_cache",
)

TOOLS = ["gxx_linux-64", "ccache", "libhwy", "cmake", "ninja", "pip"]


@pytest.fixture(scope="session")
def developer(tmp_path_factory: pytest.TempPathFactory) -> Developer:
    """All that `pip --no-build-isolation` needs."""
    return make(
        tmp_path_factory.mktemp("developer"),
        [*TOOLS, "python 3.11.*", "pytorch", "setuptools", "wheel", "packaging"],
    )


@pytest.fixture(scope="session")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Developer:
    """A compiler and pip, no torch and no setuptools: isolated builds have to bring them."""
    return make(tmp_path_factory.mktemp("newcomer"), [*TOOLS, "python 3.11.*"])


@pytest.fixture(scope="session")
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> Developer:
    """All that `pip --no-build-isolation` needs except torch, with what a torch needs that lies in some other folder."""
    torch = [
        "filelock",
        "fsspec",
        "jinja2",
        "libgomp",
        "networkx",
        "numpy",
        "sympy",
        "typing_extensions",
    ]
    specs = [*TOOLS, *torch, "python 3.11.*", "setuptools", "wheel", "packaging"]
    return make(tmp_path_factory.mktemp("withouttorch"), specs)


@pytest.fixture(scope="session")
def free_threaded(tmp_path_factory: pytest.TempPathFactory) -> Developer:
    """A CPython without the GIL, and libtorch without its Python part."""
    return make(
        tmp_path_factory.mktemp("freethreaded"),
        [*TOOLS, "python 3.13.* *_cp313t", "libtorch", "setuptools", "wheel", "packaging"],
    )


def copy_tree(target: Path) -> Path:
    """The tree as a clone has it, without its history."""
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*NOT_IN_A_CLONE), symlinks=True)
    return target


def keep_kernels(tree: Path, names: tuple[str, ...]) -> None:
    """Take all other kernels out of a tree's table."""
    table = tree / "csrc" / "kernels.toml"
    document = tomlkit.parse(table.read_text(encoding="utf-8"))
    kept = [record for record in document["kernel"] if record["name"] in names]
    assert len(kept) == len(names), f"{table} has no record of each of {names}"
    document["kernel"] = kept
    table.write_text(tomlkit.dumps(document), encoding="utf-8")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh clone for one test, cut to some kernels: each test compiles them anew, and one more kernel would try nothing else."""
    tree = copy_tree(tmp_path / "clone")
    keep_kernels(tree, ("cpu-dispatch", "activation-cpu", "norm-cpu", "rotary-cpu"))
    return tree
