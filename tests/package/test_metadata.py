# SPDX-License-Identifier: Apache-2.0
"""The metadata of the distribution agrees with the tree."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

toml = pytest.importorskip(
    "vllm_build.util.toml",
    reason="the build library is not on the path: an installed package is under test",
)


@pytest.fixture
def pyproject(root: Path) -> dict[str, Any]:
    document: dict[str, Any] = toml.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return document


def test_every_package_is_listed(root: Path, pyproject: dict[str, Any]) -> None:
    folders = {
        path.parent.relative_to(root).as_posix().replace("/", ".")
        for path in (root / "vllm").rglob("*.py")
    }
    assert set(pyproject["tool"]["setuptools"]["packages"]) == folders
    assert all((root / package.replace(".", "/") / "__init__.py").is_file() for package in folders)


def test_typed(root: Path, pyproject: dict[str, Any]) -> None:
    assert (root / "vllm" / "py.typed").is_file()
    assert "py.typed" in pyproject["tool"]["setuptools"]["package-data"]["vllm"]


def test_the_oldest_python_is_the_same_everywhere(root: Path, pyproject: dict[str, Any]) -> None:
    # The engine in the conda package `vllm` requires a newer one.
    wheels = root / "scripts" / "vllm_build" / "wheels" / "distribution.py"
    (oldest,) = re.findall(
        r'^PYTHON = ">=3\.(\d+)"$', wheels.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert "requires-python" in pyproject["project"]["dynamic"]
    assert pyproject["tool"]["ruff"]["target-version"] == f"py3{oldest}"
    assert pyproject["tool"]["mypy"]["python_version"] == f"3.{oldest}"
    recipes = sorted((root / "recipe").glob("*/recipe.yaml"))
    assert len(recipes) == 5
    for recipe in recipes:
        wanted = (
            "python >=3.11,<3.15\n" if recipe.parent.name == "vllm" else f"python >=3.{oldest}\n"
        )
        assert wanted in recipe.read_text(encoding="utf-8")


def test_the_lowest_torch_is_the_same_everywhere(root: Path) -> None:
    torch_files = (root / "scripts" / "vllm_build" / "target" / "torch_files.py").read_text(
        encoding="utf-8"
    )
    (target,) = re.findall(r'^MINIMUM = Version\("(.*)"\)$', torch_files, re.MULTILINE)
    assert f"torch>={target}" in (root / "requirements" / "common.txt").read_text(encoding="utf-8")
    required = {
        "vllm": "pytorch",
        "vllm-kernels": "libtorch",
        "vllm-flash-attn": "libtorch",
        "vllm-flashmla": "libtorch",
    }
    for package, torch in required.items():
        recipe = (root / "recipe" / package / "recipe.yaml").read_text(encoding="utf-8")
        assert f"- {torch} >={target}\n" in recipe


def test_checks_are_strict(pyproject: dict[str, Any]) -> None:
    assert pyproject["tool"]["ruff"]["lint"]["select"] == ["ALL"]
    assert pyproject["tool"]["mypy"]["strict"] is True
    options = pyproject["tool"]["pytest"]["ini_options"]
    assert {"--strict-markers", "--strict-config"} <= set(options["addopts"])
    assert (options["xfail_strict"], options["filterwarnings"][0]) == (True, "error")


def test_every_test_folder_is_run(root: Path, pyproject: dict[str, Any]) -> None:
    folders = {
        path.parent.relative_to(root).parts[:2]
        for path in (root / "tests").rglob("test_*.py")
        if "data" not in path.parts
    }
    listed = {
        tuple(name.split("/")) for name in pyproject["tool"]["pytest"]["ini_options"]["testpaths"]
    }
    assert folders - listed == {("tests", "kernels")}  # they run in an environment with the kernels
