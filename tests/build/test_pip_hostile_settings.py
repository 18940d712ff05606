# SPDX-License-Identifier: Apache-2.0
"""Downloads and installations on machines whose pip has settings that would break them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from pip_machine import HOSTILE, make_machine, write

from vllm_build.toolchain import pypi
from vllm_build.util.processes import pip_process

BACKEND = """
import zipfile
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(f"{wheel_directory}/NAME-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("installed.py", "here = True")
        archive.writestr(
            "NAME-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: NAME\\nVersion: 1.0\\n"
        )
        archive.writestr(
            "NAME-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        )
        archive.writestr(
            "NAME-1.0.dist-info/entry_points.txt", "[console_scripts]\\nNAME = installed:main\\n"
        )
        archive.writestr("NAME-1.0.dist-info/RECORD", "")
    return "NAME-1.0-py3-none-any.whl"
build_editable = build_wheel
"""
PROJECT = """
[project]
name = "NAME"
version = "1.0"
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for configuration files of a machine whose pip has no configuration."""
    return make_machine(tmp_path, monkeypatch)


def project(folder: Path, name: str) -> None:
    """A project that needs no package to build."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(PROJECT.replace("NAME", name), encoding="utf-8")
    (folder / "backend.py").write_text(BACKEND.replace("NAME", name), encoding="utf-8")


def wheel(folder: Path, name: str, version: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture(params=["a file", "variables"])
def index(request: pytest.FixtureRequest, machine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index with two versions of a package, on a machine with all harmful settings.

    The settings are in a file or in variables.
    """
    folder = machine / "index"
    for version in ("1.0", "2.0"):
        wheel(folder, "sample", version)
    constraints = machine / "constraints.txt"
    constraints.write_text("sample<2\n", encoding="utf-8")
    places = {"CONSTRAINTS": str(constraints), "ELSEWHERE": str(machine / "elsewhere")}
    values = {
        key: re.sub("CONSTRAINTS|ELSEWHERE", lambda match: places[match[0]], value)
        for key, value in HOSTILE.items()
    }
    values |= {"find-links": str(folder), "no-index": "1"}
    if request.param == "a file":
        write(
            machine / "config" / "pip" / "pip.conf",
            **{"global": values, "download": values, "install": values},
        )
    else:
        for key, value in values.items():
            monkeypatch.setenv("PIP_" + key.upper().replace("-", "_"), value)
    return folder


def test_a_locked_file_arrives(index: Path, machine: Path, tmp_path: Path) -> None:
    (resolved,) = pypi.resolve(["sample==2.0"], python="3.11", abi=None, inherited=os.environ)
    folder = tmp_path / "into"
    folder.mkdir()
    pypi.download(
        [("sample", "2.0", resolved.sha256)], folder, python="3.11", abi=None, inherited=os.environ
    )
    assert [path.name for path in folder.iterdir()] == ["sample-2.0-py3-none-any.whl"]
    assert (folder / "sample-2.0-py3-none-any.whl").read_bytes() == (
        index / "sample-2.0-py3-none-any.whl"
    ).read_bytes()
    with pytest.raises(pypi.MissingVersionError, match=r"sample 3\.0"):
        pypi.download(
            [("sample", "3.0", "0" * 64)], folder, python="3.11", abi=None, inherited=os.environ
        )
    assert not (machine / "elsewhere").exists()


@pytest.mark.slow
def test_make_installs_into_its_own_environment(
    root: Path, index: Path, machine: Path, tmp_path: Path
) -> None:
    """The project's Makefile installs a small tool and a small library."""
    tree = tmp_path / "a tree"
    for name in ("scripts/vllm_build/util/processes", "requirements"):
        (tree / name).mkdir(parents=True)
    shutil.copy(root / "Makefile", tree)
    shutil.copytree(root / "scripts" / "bin", tree / "scripts" / "bin")
    shutil.copy(pip_process.__file__, tree / "scripts" / "vllm_build" / "util" / "processes")
    (tree / "requirements" / "tools.txt").write_text("sample==2.0\n", encoding="utf-8")
    (tree / "requirements" / "dev.txt").write_text("sample==2.0\n", encoding="utf-8")
    project(tree / "scripts", "vllm_build")
    assert index.is_dir()
    python = tmp_path / "an interpreter" / "python"
    python.parent.mkdir()
    python.symlink_to(Path(sys.executable).resolve())
    command = ["make", "-C", str(tree), ".venv/bin/.installed-dev", f"PYTHON={python}"]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    installed = {path.name for path in (tree / ".venv").glob("lib/python*/site-packages/*")}
    assert {"sample-2.0.dist-info", "vllm_build-1.0.dist-info", "installed.py"} <= installed
    assert (
        "PYTHON=python3 "
        in subprocess.run(
            ["make", "-C", str(tree), "help"], capture_output=True, text=True, check=True
        ).stdout
    )
    assert not (machine / "elsewhere").exists()


@pytest.mark.slow
def test_the_recipe_installs_into_its_prefix(root: Path, machine: Path, tmp_path: Path) -> None:
    """The machine-wide configuration applies in a recipe, which has no PIP_* variables.

    The recipe also has a separate home folder.
    """
    write(
        machine / "etc" / "pip" / "pip.conf",
        **{"global": {"target": str(machine / "elsewhere"), "require-hashes": "true"}},
    )
    venv.create(tmp_path / "prefix", with_pip=True)
    project(tmp_path / "work", "vllm")
    (packages,) = (tmp_path / "prefix").glob("lib/python*/site-packages")
    env = {
        **os.environ,
        "PYTHON": str(tmp_path / "prefix" / "bin" / "python"),
        "SRC_DIR": str(tmp_path / "work"),
        "SP_DIR": str(packages),
    }
    script = ["bash", str(root / "recipe" / "vllm" / "build.sh")]
    done = subprocess.run(
        script,
        cwd=tmp_path / "work",
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert list((tmp_path / "prefix").glob("lib/python*/site-packages/installed.py"))
    assert not (machine / "elsewhere").exists()
