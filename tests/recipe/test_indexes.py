# SPDX-License-Identifier: Apache-2.0
"""Any file in place of a channel's index is read, or refused at once as damaged."""

from __future__ import annotations

import json
import os
import signal
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conda_files import make_channel, make_package

from vllm_build import cli
from vllm_build.conda import package_channel
from vllm_build.conda.environments import solver
from vllm_build.packing import channel_index, index_check, recipe_builder
from vllm_build.util import errors
from vllm_build.util.errors import IntegrityError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vllm_build.util.console import Console

NAME = "foo-1.0-h0_0.conda"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    def expired(*_: object) -> None:
        pytest.fail("it waits for something")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A channel with foo."""
    make_channel(tmp_path / "channel", make_package(tmp_path / "made", "foo", {"foo.txt": "one"}))
    return tmp_path / "channel"


def _socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def _huge(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(channel_index.LIMIT + 1)


SPECIAL: dict[str, Callable[[Path], None]] = {
    "a FIFO": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": lambda path: path.mkdir(),
    "a socket": _socket,
    "a huge file": _huge,
}
TEXTS = {
    "nothing": b"",
    "no JSON": b"{",
    "no UTF-8": b'{"\xff": 1}',
    "nested": b"[" * 200_000,
    "a list": b"[]",
    "null": b"null",
    "a number": b"1",
    "a list of packages": b'{"packages.conda": []}',
    "null for packages": b'{"packages": null}',
    ("a number that has been removed"): b'{"info": {"subdir": "noarch"}, "packages": {}, '
    b'"packages.conda": {}, "removed": 5}',
}
ENTRIES: dict[str, Any] = {
    "name": 1,
    "version": 1,
    "build": None,
    "build_number": "x",
    "depends": "x",
    "sha256": 1,
    "size": "x",
    "subdir": 1,
    "timestamp": "x",
}


def broken(index: Path) -> dict[str, Callable[[], object]]:
    """All ways to break an index."""
    document = json.loads(index.read_text(encoding="utf-8"))

    def special(make: Callable[[Path], None]) -> None:
        index.unlink()
        make(index)

    def write(parts: dict[str, Any]) -> None:
        index.write_text(json.dumps({**document, **parts}), encoding="utf-8")

    def entry(value: Any) -> None:
        write({"packages.conda": {NAME: value}})

    good = document["packages.conda"][NAME]
    return {
        **{name: partial(special, make) for name, make in SPECIAL.items()},
        **{name: partial(index.write_bytes, text) for name, text in TEXTS.items()},
        **{
            f"{key} of an entry": partial(entry, {**good, key: value})
            for key, value in ENTRIES.items()
        },
        "a text for an entry": partial(entry, "x"),
        "a list for an entry": partial(entry, []),
        "a path for a name": partial(write, {"packages": {f"../{NAME}": good}}),
    }


EVERY = [
    *SPECIAL,
    *TEXTS,
    *(f"{key} of an entry" for key in ENTRIES),
    "a text for an entry",
    "a list for an entry",
    "a path for a name",
]


@pytest.mark.parametrize("how", EVERY)
def test_an_install_refuses_a_damaged_index(
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: str,
) -> None:
    monkeypatch.setattr(package_channel, "url", lambda *_: folder.as_uri())
    broken(folder / "noarch" / "repodata.json")[how]()
    command = [
        "install",
        str(tmp_path / "env"),
        "foo",
        "--output",
        str(folder),
        "--channel",
        "conda-forge",
    ]
    assert cli.main(command) == errors.IntegrityError.exit_code
    said = capsys.readouterr().err
    assert "is damaged" in said
    assert str(folder) in said
    assert "Traceback" not in said
    assert not (tmp_path / "env").exists()


@pytest.mark.parametrize("how", [*SPECIAL, *TEXTS, "a list for an entry"])
def test_every_reader(tmp_path: Path, folder: Path, console: Console, how: str) -> None:
    index = folder / "noarch" / "repodata.json"
    broken(index)[how]()
    if how != "a number that has been removed":
        with pytest.raises(IntegrityError, match="is damaged"):
            index_check.in_channel(folder)
        with pytest.raises(IntegrityError, match="is damaged"):
            recipe_builder.build(
                tmp_path / "made" / "noarch" / NAME,
                channels=[folder.as_uri()],
                output_dir=tmp_path / "work",
                console=console,
                inherited=os.environ,
            )
    with pytest.raises(IntegrityError, match="is damaged"):
        solver.solve_specs(["foo"], [folder.as_uri()])
    assert channel_index.indexed(folder) == {}


@pytest.mark.parametrize("how", ["a FIFO", "a device", "a socket"])
def test_a_channel_is_indexed_over_what_lies_there(folder: Path, how: str) -> None:
    index = folder / "noarch" / "repodata.json"
    broken(index)[how]()
    channel_index.publish([], folder)
    assert list(channel_index.indexed(folder)) == [f"noarch/{NAME}"]


def test_a_missing_index_is_a_missing_channel(folder: Path) -> None:
    (folder / "noarch" / "repodata.json").unlink()
    with pytest.raises(ToolchainError, match="could not find subdir 'noarch'"):
        solver.solve_specs(["foo"], [folder.as_uri()])
