# SPDX-License-Identifier: Apache-2.0
"""The script with which recipes install wheels."""

from __future__ import annotations

import csv
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

MEMBERS = {
    "sample/__init__.py": "version = 1\n",
    "sample/tests/test_x.py": "",
    "sample-1.0.data/scripts/tool": "#!python\nprint(1)\n",
    "sample-1.0.data/data/share/doc.txt": "text\n",
    "sample-1.0.data/headers/sample.h": "\n",
    "sample-1.0.data/purelib/extra.py": "x = 1\n",
    "sample-1.0.dist-info/METADATA": "Name: sample\n",
    "sample-1.0.dist-info/licenses/LICENSE": "free\n",
    "sample-1.0.dist-info/entry_points.txt": (
        "[console_scripts]\nsample = sample.cli:App.run\n[other]\nx = y:z\n"
    ),
    "sample-1.0.dist-info/RECORD": "stale,,\n",
}


@pytest.fixture
def installed(tmp_path: Path, root: Path, request: pytest.FixtureRequest) -> Path:
    (tmp_path / "sources").mkdir()
    (tmp_path / "work").mkdir()
    with zipfile.ZipFile(tmp_path / "sources" / "sample-1.0-py3-none-any.whl", "w") as archive:
        for name, text in MEMBERS.items():
            archive.writestr(name, text)
    helper = root / "toolchain" / "recipes" / "common" / "install_wheel.py"
    command = [
        sys.executable,
        str(helper),
        "sample-*.whl",
        "lib/python3.11/site-packages",
        *getattr(request, "param", []),
    ]
    env = {"TOOLCHAIN_SOURCES": str(tmp_path / "sources"), "PREFIX": str(tmp_path / "prefix")}
    subprocess.run(command, env=env, cwd=tmp_path / "work", check=True)
    return tmp_path / "prefix"


def tree(prefix: Path) -> set[str]:
    return {path.relative_to(prefix).as_posix() for path in prefix.rglob("*") if path.is_file()}


SITE = "lib/python3.11/site-packages"
FILES = {
    f"{SITE}/sample/__init__.py",
    f"{SITE}/sample/tests/test_x.py",
    f"{SITE}/extra.py",
    "bin/tool",
    "share/doc.txt",
    "include/sample.h",
    *(
        f"{SITE}/sample-1.0.dist-info/{name}"
        for name in ("METADATA", "RECORD", "INSTALLER", "licenses/LICENSE", "entry_points.txt")
    ),
}


def test_every_part_goes_where_the_format_says(installed: Path) -> None:
    assert tree(installed) == FILES
    assert (installed / "bin/tool").read_text(encoding="utf-8").splitlines()[
        0
    ] == f"#!{installed}/bin/python"
    assert (installed / "bin/tool").stat().st_mode & 0o777 == 0o755
    assert (installed / SITE / "extra.py").stat().st_mode & 0o777 == 0o644
    assert (installed.parent / "work" / "licenses" / "LICENSE").read_text(
        encoding="utf-8"
    ) == "free\n"


def test_the_record_names_what_is_there(installed: Path) -> None:
    with (installed / SITE / "sample-1.0.dist-info" / "RECORD").open(encoding="utf-8") as stream:
        rows = {row[0]: row for row in csv.reader(stream)}
    assert {
        (installed / SITE / name).resolve().relative_to(installed.resolve()).as_posix()
        for name in rows
    } == FILES
    assert rows["sample/__init__.py"][1].startswith("sha256=")
    assert rows["../../../bin/tool"][1:] == ["", ""], (
        "the installer changes scripts, so they have no hash"
    )


@pytest.mark.parametrize(
    "installed", [["--scripts", "--without", "sample/*/test_*"]], indirect=True
)
def test_scripts_and_what_is_left_out(installed: Path) -> None:
    assert tree(installed) == (FILES | {"bin/sample"}) - {f"{SITE}/sample/tests/test_x.py"}
    text = (installed / "bin/sample").read_text(encoding="utf-8")
    assert "from sample.cli import App\n" in text
    assert "sys.exit(App.run())" in text
    compile(text, "sample", "exec")


def test_a_pattern_that_matches_nothing(tmp_path: Path, root: Path) -> None:
    helper = root / "toolchain" / "recipes" / "common" / "install_wheel.py"
    env = {"TOOLCHAIN_SOURCES": str(tmp_path), "PREFIX": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(helper), "x-*.whl", "lib"],
        env=env,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "x-*.whl matches 0 files" in done.stderr
