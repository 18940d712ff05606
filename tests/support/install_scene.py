# SPDX-License-Identifier: Apache-2.0
"""A channel and environments for tests of ``vllm-build install``.

A test module imports the fixtures; their names there have no suffix ``_fixture``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from conda_files import make_channel, make_package

from vllm_build.conda import package_channel
from vllm_build.conda.environments import conda_environment, intact

if TYPE_CHECKING:
    from pathlib import Path

#: Enough files for a kill to fall between two of them.
FILES = 40


@pytest.fixture(autouse=True, name="own_cache")
def own_cache_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))


@pytest.fixture(name="channel")
def channel_fixture(tmp_path: Path) -> str:
    """A channel with foo 1.0 and 2.0, whose files contain the version, and the unsolvable bar."""
    made = [
        make_package(
            tmp_path / "made",
            "foo",
            {f"share/foo/{number}": version for number in range(FILES)},
            version=version,
        )
        for version in ("1.0", "2.0")
    ]
    made.append(make_package(tmp_path / "made", "bar", {"bar": "x"}, depends=["nothing-has-this"]))
    return make_channel(tmp_path / "channel", *made)


@pytest.fixture(name="one_channel")
def one_channel_fixture(channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_channel, "url", lambda *_: channel)


@pytest.fixture(name="science")
def science_fixture(tmp_path: Path, channel: str) -> Path:
    """Another program's environment: scipy from another channel, foo 1.0, a file from pip."""
    prefix = tmp_path / "science"
    scipy = make_package(tmp_path / "made", "scipy", {"lib/scipy": "s"})
    conda_environment.create(
        prefix, ["scipy", "foo 1.0"], [make_channel(tmp_path / "theirs", scipy), channel]
    )
    (prefix / intact.MARKER).unlink()
    (prefix / "lib" / "of_pip").write_text("pip", encoding="utf-8")
    (prefix / "lib" / "link").symlink_to("of_pip")
    return prefix


def version_of(prefix: Path) -> str:
    """The version of foo in the prefix, which must be complete."""
    assert list(intact.damages(prefix, ["foo"])) == []
    (record,) = (prefix / "conda-meta").glob("foo-*.json")
    texts = {
        (prefix / "share" / "foo" / str(number)).read_text(encoding="utf-8")
        for number in range(FILES)
    }
    assert texts == {json.loads(record.read_text(encoding="utf-8"))["version"]}
    return texts.pop()


def below(folder: Path) -> dict[str, str | None]:
    """All paths below a folder, with the text of files."""
    return {
        p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8") if p.is_file() else None
        for p in sorted(folder.rglob("*"))
    }


def beside(prefix: Path) -> list[str]:
    return sorted(
        path.name for path in prefix.parent.iterdir() if path.name.startswith(f".{prefix.name}.")
    )


def edited_in_place(path: Path) -> None:
    """Edit a file but keep its size and modification time, so that only the status change shows."""
    status = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def install_command(prefix: Path, channel: str, *more: str) -> list[str]:
    return [
        "install",
        str(prefix),
        "foo",
        "--output",
        channel.removeprefix("file://"),
        "--channel",
        "conda-forge",
        *more,
    ]


def start(root: Path, *arguments: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(root / "scripts")}
    return subprocess.Popen(
        [sys.executable, str(root / "tests" / "support" / "install_child.py"), *arguments], env=env
    )
