# SPDX-License-Identifier: Apache-2.0
"""Packages of local channels are compared with their index before anything reads them."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import threading
import time
from typing import TYPE_CHECKING

import pytest
from conda_files import make_channel, make_package

from vllm_build import cli
from vllm_build.conda import package_channel
from vllm_build.conda.environments import conda_environment
from vllm_build.packing import index_check, recipe_builder
from vllm_build.util import errors
from vllm_build.util.errors import FetchError, IntegrityError
from vllm_build.util.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vllm_build.util.console import Console


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of a channel, with the text "one"."""
    made = make_package(tmp_path / "made", "foo", {"foo.txt": "one"})
    make_channel(tmp_path / "channel", made)
    return tmp_path / "channel" / "noarch" / made.name


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another file of the same name and size."""
    return make_package(tmp_path / "evil", "foo", {"foo.txt": "two"})


def url(package: Path) -> str:
    return package.parents[1].as_uri()


def swap(package: Path, other: Path) -> None:
    """Replace the file and keep the index, the size, and the times that a program can set."""
    status = package.stat()
    with package.open("r+b") as stream:
        stream.write(other.read_bytes())
        stream.truncate()
    os.utime(package, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_an_altered_package_is_not_installed(
    tmp_path: Path,
    package: Path,
    other: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(package_channel, "url", lambda *_: url(package))
    swap(package, other)
    with pytest.raises(IntegrityError, match="is not the package that its channel lists") as caught:
        conda_environment.create(tmp_path / "env", ["foo"], [url(package)])
    assert str(package) in str(caught.value)
    assert not (tmp_path / "env").exists()
    command = [
        "install",
        str(tmp_path / "env"),
        "foo",
        "--output",
        str(package.parents[1]),
        "--channel",
        "conda-forge",
    ]
    assert cli.main(command) == errors.IntegrityError.exit_code
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "env").exists()


def test_a_package_that_is_altered_after_it_was_verified_is_noticed(
    tmp_path: Path, package: Path, other: Path
) -> None:
    # The file must be old enough for its result to be kept.
    os.utime(package, ns=(1, 1))
    time.sleep(1.1)
    conda_environment.create(tmp_path / "env", ["foo"], [url(package)])
    assert list((tmp_path / "cache" / "verified").glob("*.json"))
    swap(package, other)
    with pytest.raises(IntegrityError):
        conda_environment.create(tmp_path / "env", ["foo"], [url(package)])
    assert (tmp_path / "env" / "foo.txt").read_text(encoding="utf-8") == "one"


def test_an_unchanged_package_is_hashed_once_under_all_its_names(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []

    def counted(path: Path) -> str:
        hashed.append(path)
        return sha256_of(path)

    monkeypatch.setattr(index_check, "sha256_of", counted)
    second = package.with_name("link")
    os.link(package, second)
    time.sleep(1.1)
    expected = sha256_of(package)
    for path in (package, package, second):
        index_check.require([index_check.Listed(path, expected)])
    assert hashed == [package]
    with pytest.raises(IntegrityError):
        index_check.require([index_check.Listed(package, "0" * 64)])
    assert hashed == [package], "what it is, is known: only the index is another"


def test_a_result_is_not_kept_while_the_file_may_change_within_a_clock_tick(
    tmp_path: Path, package: Path
) -> None:
    package.touch()
    index_check.require([index_check.Listed(package, sha256_of(package))])
    assert not (tmp_path / "cache" / "verified").exists()


def test_a_spoilt_note_is_not_believed(tmp_path: Path, package: Path) -> None:
    time.sleep(1.1)
    listed = index_check.Listed(package, sha256_of(package))
    index_check.require([listed])
    (note,) = (tmp_path / "cache" / "verified").glob("*.json")
    for text in ("", "[]", "{}", json.dumps({"state": 1, "sha256": "0" * 64})):
        note.write_text(text, encoding="utf-8")
        index_check.require([listed])


def test_what_is_missing_or_no_file_or_not_listed_with_a_sha256(
    tmp_path: Path, package: Path
) -> None:
    for path, kind, match in (
        (tmp_path / "none.conda", FetchError, "cannot be read"),
        (tmp_path, IntegrityError, "not a regular file"),
    ):
        with pytest.raises(kind, match=match):
            index_check.require([index_check.Listed(path, "0" * 64)])
    os.mkfifo(tmp_path / "pipe.conda")
    with pytest.raises(IntegrityError, match="not a regular file"):
        index_check.require([index_check.Listed(tmp_path / "pipe.conda", "0" * 64)])
    with pytest.raises(IntegrityError, match="gives no sha256"):
        index_check.require([index_check.Listed(package, None)])
    with pytest.raises(IntegrityError, match=r"has \d+ bytes"):
        index_check.require([index_check.Listed(package, sha256_of(package), 1)])


def test_a_package_that_is_replaced_while_it_is_installed(package: Path, other: Path) -> None:
    states = index_check.require([index_check.Listed(package, sha256_of(package))])
    index_check.require_unchanged(states)
    swap(package, other)
    with pytest.raises(IntegrityError, match="changed while it was installed"):
        index_check.require_unchanged(states)


def test_the_same_name_with_other_bytes_in_another_channel_is_another_package(
    tmp_path: Path, package: Path, other: Path
) -> None:
    second = make_channel(tmp_path / "second", other)
    for _ in range(2):
        conda_environment.create(tmp_path / "env", ["foo"], [url(package)])
        assert (tmp_path / "env" / "foo.txt").read_text(encoding="utf-8") == "one"
        conda_environment.create(tmp_path / "env", ["foo"], [second])
        assert (tmp_path / "env" / "foo.txt").read_text(encoding="utf-8") == "two"


def test_an_edited_file_of_an_environment_is_not_installed_again(
    tmp_path: Path, package: Path
) -> None:
    conda_environment.create(tmp_path / "env", ["foo"], [url(package)])
    # Write in place: with hard links, this would also change the cache of extracted packages.
    with (tmp_path / "env" / "foo.txt").open("r+") as stream:
        stream.write("bad")
    conda_environment.create(tmp_path / "second", ["foo"], [url(package)])
    assert (tmp_path / "second" / "foo.txt").read_text(encoding="utf-8") == "one"


def test_a_build_does_not_begin_with_an_altered_channel(
    tmp_path: Path, package: Path, other: Path, console: Console
) -> None:
    recipe = tmp_path / "recipe" / "recipe.yaml"
    recipe.parent.mkdir()
    recipe.write_text(
        "package: {name: user, version: '1'}\nrequirements: {host: [foo]}\n"
        "build: {script: 'true'}\n",
        encoding="utf-8",
    )
    swap(package, other)
    with pytest.raises(IntegrityError, match="is not the package that its channel lists"):
        recipe_builder.build(
            recipe,
            channels=[url(package)],
            output_dir=tmp_path / "work",
            console=console,
            inherited=os.environ,
        )
    assert not (tmp_path / "work").exists()


@pytest.fixture
def served(package: Path) -> Iterator[str]:
    """The channel over http."""
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(package.parents[1])
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_over_http_rattler_compares(
    tmp_path: Path, package: Path, other: Path, served: str
) -> None:
    good = tmp_path / "good"
    shutil.copy(package, good)
    swap(package, other)
    with pytest.raises(IntegrityError, match="hash mismatch"):
        conda_environment.create(tmp_path / "env", ["foo"], [served])
    assert not (tmp_path / "env").exists()
    swap(package, good)
    conda_environment.create(tmp_path / "env", ["foo"], [served])
    assert (tmp_path / "env" / "foo.txt").read_text(encoding="utf-8") == "one"
