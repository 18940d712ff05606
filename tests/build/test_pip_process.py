# SPDX-License-Identifier: Apache-2.0
"""pip's configuration: what leads to an index counts, everything else of the machine does not."""

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

from vllm_build.toolchain import pypi
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.processes import pip_process

#: Settings that people have for their own environments; each one breaks a download or an
#: installation into an environment of ours.
HOSTILE = {
    "constraint": "CONSTRAINTS",
    "user": "true",
    "target": "ELSEWHERE",
    "prefix": "ELSEWHERE",
    "root": "ELSEWHERE",
    "src": "ELSEWHERE",
    "require-virtualenv": "true",
    "require-hashes": "true",
    "only-binary": "none",
    "no-binary": ":all:",
    "platform": "win_amd64",
    "python-version": "2.7",
    "dry-run": "true",
    "quiet": "3",
    "verbose": "2",
    "report": "ELSEWHERE/report.json",
    "dest": "ELSEWHERE",
    "uploaded-prior-to": "2001-01-01",
}
BACKEND = """
import zipfile
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(f"{wheel_directory}/NAME-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("installed.py", "here = True")
        archive.writestr("NAME-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: NAME\\nVersion: 1.0\\n")
        archive.writestr("NAME-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
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
    """A machine whose pip has no configuration yet; returns the folder for its files."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "machine"
    (folder / "etc" / "pip").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(folder / "etc"))
    return folder


def write(path: Path, **sections: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for section, values in sections.items():
        lines += [f"[{section}]", *(f"{key} = {value}" for key, value in values.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def kept(command: str = "download") -> dict[str, str]:
    """The part of the environment that pip reads."""
    return {
        name: value
        for name, value in pip_process.environment(command, os.environ).items()
        if name.startswith("PIP_")
    }


FIXED = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}


def test_what_leads_to_an_index_stays_and_nothing_else(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        machine / "config" / "pip" / "pip.conf",
        **{
            "global": {
                "index-url": "https://user:p%40ss@example.invalid/simple",
                "proxy": "http://proxy.invalid:3128",
                **HOSTILE,
            },
            "install": {"find-links": "/here\n    /there", "user": "true"},
            "freeze": {"timeout": "9"},
        },
    )
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "1")
    reach = {
        "PIP_INDEX_URL": "https://user:p%40ss@example.invalid/simple",
        "PIP_PROXY": "http://proxy.invalid:3128",
        "PIP_RETRIES": "0",
    }
    assert kept("download") == {**FIXED, **reach}
    found = kept("install")
    assert found.pop("PIP_FIND_LINKS").split() == ["/here", "/there"]
    assert found == {**FIXED, **reach}


def test_the_order_of_files_sections_and_variables_is_pips(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `pip config list` names the user's file first, as "config" sorts before "etc"; the user's file
    # counts.
    write(
        machine / "etc" / "pip" / "pip.conf",
        **{"global": {"timeout": "1", "retries": "1", "proxy": "http://one.invalid"}},
    )
    write(
        machine / "config" / "pip" / "pip.conf",
        **{"global": {"timeout": "2", "retries": "2"}, "download": {"retries": "3"}},
    )
    found = kept()
    assert (found["PIP_TIMEOUT"], found["PIP_RETRIES"], found["PIP_PROXY"]) == (
        "2",
        "3",
        "http://one.invalid",
    )
    monkeypatch.setenv("PIP_RETRIES", "4")
    monkeypatch.setenv("PIP_TIMEOUT", "")
    found = kept()
    assert (found["PIP_TIMEOUT"], found["PIP_RETRIES"]) == ("2", "4"), (
        "an empty variable is none, for pip too"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    assert kept() == {**FIXED, "PIP_RETRIES": "4"}


def test_pip_reads_what_it_is_given(machine: Path) -> None:
    """The variables mean to pip what the files meant."""
    links = machine / "with links"
    write(
        machine / "config" / "pip" / "pip.conf",
        **{"global": {"find-links": links.as_uri(), "no-index": "yes", "constraint": "/none"}},
    )
    command = [sys.executable, "-m", "pip", "config", "list"]
    said = subprocess.run(
        command,
        env=pip_process.environment("download", os.environ),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f":env:.find-links='{links.as_uri()}'" in said.splitlines()
    assert ":env:.no-index='yes'" in said.splitlines()
    assert "constraint" not in said


@pytest.mark.parametrize("text", ["[global\n", "timeout = 3\n", "[global]\nx = 1\nx = 2\n"])
def test_a_file_that_is_no_configuration(machine: Path, tmp_path: Path, text: str) -> None:
    path = write(machine / "config" / "pip" / "pip.conf")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(pip_process.PipConfigurationError, match=r"pip\.conf"):
        pip_process.environment("download", os.environ)
    with pytest.raises(ConfigurationError, match=r"pip\.conf") as caught:
        pypi.download([("sample", "1.0", "0" * 64)], tmp_path, python="3.11", abi=None)
    assert "Traceback" not in str(caught.value)
    program = [sys.executable, "-I", pip_process.__file__, "--quiet", "list"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("pip's configuration cannot be read: ")
    assert "Traceback" not in done.stderr


# What is fetched and installed, on machines with such settings


def project(folder: Path, name: str) -> None:
    """A project that builds without any package."""
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
    """An index with two versions of a package, on a machine that has every hostile setting, in a file or in variables."""
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
    (resolved,) = pypi.resolve(["sample==2.0"], python="3.11", abi=None)
    folder = tmp_path / "into"
    folder.mkdir()
    pypi.download([("sample", "2.0", resolved.sha256)], folder, python="3.11", abi=None)
    assert [path.name for path in folder.iterdir()] == ["sample-2.0-py3-none-any.whl"]
    assert (folder / "sample-2.0-py3-none-any.whl").read_bytes() == (
        index / "sample-2.0-py3-none-any.whl"
    ).read_bytes()
    with pytest.raises(pypi.MissingVersionError, match=r"sample 3\.0"):
        pypi.download([("sample", "3.0", "0" * 64)], folder, python="3.11", abi=None)
    assert not (machine / "elsewhere").exists()


@pytest.mark.slow
def test_make_installs_into_its_own_environment(
    root: Path, index: Path, machine: Path, tmp_path: Path
) -> None:
    """The project's Makefile, with a tool and a library of its own small enough to install here."""
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
    """A configuration for the whole machine reaches a recipe too, which has no variables of pip and a home of its own."""
    write(
        machine / "etc" / "pip" / "pip.conf",
        **{"global": {"target": str(machine / "elsewhere"), "require-hashes": "true"}},
    )
    venv.create(tmp_path / "prefix", with_pip=True)
    project(tmp_path / "work", "vllm")
    env = {
        **os.environ,
        "PYTHON": str(tmp_path / "prefix" / "bin" / "python"),
        "SRC_DIR": str(tmp_path / "work"),
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


def test_a_user_id_without_an_account_and_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip asks where its cache would lie, and ends with a traceback where nothing tells it."""

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pip_process.pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME", raising=False)
    assert pip_process.environment("download", os.environ)["HOME"] == "/nonexistent"
    monkeypatch.setenv("HOME", "/somewhere")
    assert pip_process.environment("download", os.environ)["HOME"] == "/somewhere"
