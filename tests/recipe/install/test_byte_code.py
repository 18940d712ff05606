# SPDX-License-Identifier: Apache-2.0
"""Installed modules have byte code, so that users without write permission need not compile."""

from __future__ import annotations

import importlib.util
import marshal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vllm_build.conda.environments import byte_code
from vllm_build.util.errors import PackageTestError, ResourceError

SITE = "lib/python3/site-packages"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An environment with this interpreter, a good module, and one that is a template."""
    made = tmp_path / "new"
    (made / "bin").mkdir(parents=True)
    (made / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    (made / SITE / "foo").mkdir(parents=True)
    (made / SITE / "foo" / "good.py").write_text("def f(): pass\n")
    (made / SITE / "foo" / "template.py").write_text("{{ name }} = = 1\n")
    (made / SITE / "other.py").write_text("x = 1\n")
    return made


def records(**changes: Any) -> dict[str, dict[str, Any]]:
    files = [f"{SITE}/foo/good.py", f"{SITE}/foo/template.py", f"{SITE}/foo/data.txt"]
    return {"foo.json": {"name": "foo", "noarch": "python", "files": files, **changes}}


def compiled(source: Path) -> Path:
    return Path(importlib.util.cache_from_source(str(source)))


def test_modules_of_noarch_packages_are_compiled(folder: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "env"
    byte_code.compile_modules(folder, prefix, records())
    made = compiled(folder / SITE / "foo" / "good.py")
    code = marshal.loads(made.read_bytes()[16:])  # noqa: S302 - just written
    # Tracebacks name the place where the environment will be.
    assert code.co_filename == str(prefix / SITE / "foo" / "good.py")
    assert [path.name for path in folder.rglob("*.pyc")] == [made.name]


def test_other_packages_bring_their_own(folder: Path, tmp_path: Path) -> None:
    byte_code.compile_modules(folder, tmp_path / "env", records(noarch=None))
    byte_code.compile_modules(folder, tmp_path / "env", records(files=["share/foo.py"]))
    assert not list(folder.rglob("*.pyc"))


def test_an_environment_without_python(folder: Path, tmp_path: Path) -> None:
    (folder / "bin" / "python").unlink()
    byte_code.compile_modules(folder, tmp_path / "env", records())
    assert not list(folder.rglob("*.pyc"))


@pytest.mark.parametrize(
    ("status", "said", "error"),
    [
        (1, "OSError: [Errno 28] No space left on device: 'x.pyc'", ResourceError),
        (-11, "", PackageTestError),
        (2, "no such option", PackageTestError),
    ],
)
def test_an_interpreter_that_cannot_compile(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    said: str,
    error: type[Exception],
) -> None:
    done = subprocess.CompletedProcess([], status, said, None)
    monkeypatch.setattr(byte_code.children, "run", lambda *_, **__: done)
    with pytest.raises(error, match="compiling the Python modules of "):
        byte_code.compile_modules(folder, tmp_path / "env", records())
