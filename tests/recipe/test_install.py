# SPDX-License-Identifier: Apache-2.0
"""``vllm-build install``: a new environment replaces one of ours when it is complete, and nothing else is ever touched."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conda_files import PLACEHOLDER, make_channel, make_package, with_prefix
from rattler_build import assemble_package

from vllm_build import cli
from vllm_build.conda import package_channel
from vllm_build.conda.environments import conda_environment, edits, intact, prefixes
from vllm_build.util import errors
from vllm_build.util.errors import BusyError, ConfigurationError, PackageTestError, ToolchainError
from vllm_build.util.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable

#: Enough files for a kill to fall between two of them.
FILES = 40
KILLS = 12


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def channel(tmp_path: Path) -> str:
    """Has foo 1.0 and 2.0, whose files say the version, and bar, which nothing provides a dependency for."""
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


def version_of(prefix: Path) -> str:
    """The version of foo that the prefix has whole."""
    assert list(intact.damages(prefix, ["foo"])) == []
    (record,) = (prefix / "conda-meta").glob("foo-*.json")
    texts = {
        (prefix / "share" / "foo" / str(number)).read_text(encoding="utf-8")
        for number in range(FILES)
    }
    assert texts == {json.loads(record.read_text(encoding="utf-8"))["version"]}
    return texts.pop()


def below(folder: Path) -> dict[str, str | None]:
    """All that lies below a folder, with the text of files."""
    return {
        p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8") if p.is_file() else None
        for p in sorted(folder.rglob("*"))
    }


def beside(prefix: Path) -> list[str]:
    return sorted(
        path.name for path in prefix.parent.iterdir() if path.name.startswith(f".{prefix.name}.")
    )


def test_an_environment_of_ours_is_replaced(tmp_path: Path, channel: str) -> None:
    prefix = tmp_path / "envs" / "mine"
    conda_environment.create(prefix, ["foo 1.0"], [channel])
    assert version_of(prefix) == "1.0"
    conda_environment.create(prefix, ["foo 2.0"], [channel])
    assert version_of(prefix) == "2.0"
    assert beside(prefix) == []


def test_installed_files_have_the_path_of_the_prefix(tmp_path: Path) -> None:
    package = make_package(
        tmp_path / "made",
        "tool",
        {"bin/tool": f"#!{PLACEHOLDER}/bin/python\n", "lib": f"\0{PLACEHOLDER}/lib\0"},
    )
    with_prefix(package, {"bin/tool": "text", "lib": "binary"})
    prefix = tmp_path / "env"
    for again in (False, True):
        conda_environment.create(
            prefix, ["tool"], [make_channel(tmp_path / "channel", package)], force=again
        )
        assert (prefix / "bin" / "tool").read_text(encoding="utf-8") == f"#!{prefix}/bin/python\n"
        library = (prefix / "lib").read_bytes()
        assert library.startswith(b"\0" + os.fsencode(prefix) + b"/lib\0")
        assert len(library) == len(PLACEHOLDER) + 6
        assert list(intact.damages(prefix, ["tool"])) == []
        (prefix / "bin" / "tool").write_text("#!/bin/sh\n", encoding="utf-8")
        assert list(intact.damages(prefix, [])) == ["bin/tool was changed"]


@pytest.mark.parametrize("spec", ["nothing-has-this", "bar"])
def test_what_cannot_be_solved_leaves_the_environment(
    tmp_path: Path, channel: str, spec: str
) -> None:
    prefix = tmp_path / "env"
    conda_environment.create(prefix, ["foo 1.0"], [channel])
    with pytest.raises(ToolchainError):
        conda_environment.create(prefix, [spec], [channel])
    assert version_of(prefix) == "1.0"
    assert beside(prefix) == []


def test_a_folder_of_the_users_is_left_alone(
    tmp_path: Path, channel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = tmp_path / "thesis"
    prefix.mkdir()
    (prefix / "chapter1.tex").write_text("years of work", encoding="utf-8")
    output = channel.removeprefix("file://")
    command = ["install", str(prefix), "foo", "--output", output, "--channel", "conda-forge"]
    assert cli.main(command) == errors.ConfigurationError.exit_code
    said = capsys.readouterr().err
    assert "--force" in said
    assert "Traceback" not in said
    assert below(prefix) == {"chapter1.tex": "years of work"}
    # Also with --force, as long as there is nothing to replace it with.
    with pytest.raises(ToolchainError):
        conda_environment.create(prefix, ["nothing-has-this"], [channel], force=True)
    assert below(prefix) == {"chapter1.tex": "years of work"}
    conda_environment.create(prefix, ["foo 1.0"], [channel], force=True)
    assert version_of(prefix) == "1.0"
    assert not (prefix / "chapter1.tex").exists()


def test_an_empty_folder_is_used(tmp_path: Path, channel: str) -> None:
    (tmp_path / "env").mkdir()
    conda_environment.create(tmp_path / "env", ["foo 1.0"], [channel])
    assert version_of(tmp_path / "env") == "1.0"


def test_an_environment_of_another_program_is_left_alone(tmp_path: Path, channel: str) -> None:
    prefix = tmp_path / "env"
    conda_environment.create(prefix, ["foo 1.0"], [channel])
    (prefix / intact.MARKER).unlink()
    before = below(prefix)
    with pytest.raises(
        ConfigurationError, match="a conda environment that vllm-build did not install"
    ):
        conda_environment.create(prefix, ["foo 2.0"], [channel])
    assert below(prefix) == before


@pytest.mark.parametrize(
    "added",
    [
        "share/results.csv",
        "lib/python3.11/site-packages/scipy/__init__.py",
        "conda-meta/scipy-1.0-0.json",
    ],
)
def test_what_was_added_to_an_environment_of_ours_is_left_alone(
    tmp_path: Path, channel: str, added: str
) -> None:
    prefix = tmp_path / "env"
    conda_environment.create(prefix, ["foo 1.0"], [channel])
    (prefix / added).parent.mkdir(parents=True, exist_ok=True)
    (prefix / added).write_text('{"name": "scipy"}', encoding="utf-8")
    with pytest.raises(
        ConfigurationError, match=rf"added after vllm-build made it: .*{Path(added).name}"
    ):
        conda_environment.create(prefix, ["foo 2.0"], [channel])
    assert (prefix / added).is_file()
    assert version_of(prefix) == "1.0"


def edited_in_place(path: Path) -> None:
    """As an editor that keeps size and modification time: only the time of the last status change tells."""
    status = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced_by_a_longer_one(path: Path) -> None:
    path.unlink()
    path.write_text("something else", encoding="utf-8")


def replaced_by_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/null")


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    "how", [edited_in_place, replaced_by_a_longer_one, replaced_by_a_link, removed]
)
@pytest.mark.parametrize("copied", [False, True])
def test_what_was_changed_in_an_environment_of_ours_is_left_alone(
    tmp_path: Path, channel: str, how: Callable[[Path], None], *, copied: bool
) -> None:
    prefix = tmp_path / "env"
    conda_environment.create(prefix, ["foo 1.0"], [channel])
    if copied:
        # Nothing of the noted states holds for a copy: its files are hashed.
        shutil.copytree(prefix, tmp_path / "copy", symlinks=True)
        shutil.rmtree(prefix)
        (tmp_path / "copy").rename(prefix)
        conda_environment.create(prefix, ["foo 1.0"], [channel])
    how(prefix / "share" / "foo" / "7")
    before = below(prefix)
    with pytest.raises(
        ConfigurationError, match=r"(changed|removed) after vllm-build made it: share/foo/7"
    ) as caught:
        conda_environment.create(prefix, ["foo 2.0"], [channel])
    assert "--force" in str(caught.value)
    assert below(prefix) == before
    assert beside(prefix) == []
    conda_environment.create(prefix, ["foo 2.0"], [channel], force=True)
    assert version_of(prefix) == "2.0"


def test_unchanged_packages_are_not_read_again(
    tmp_path: Path, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = tmp_path / "env"
    conda_environment.create(prefix, ["foo 1.0"], [channel])
    hashed: list[Path] = []

    def note(path: Path) -> str:
        hashed.append(path)
        return sha256_of(path)

    monkeypatch.setattr(edits, "sha256_of", note)
    prefixes.require_replaceable(prefix)
    assert hashed == []
    # Another state and the same content: a user who made files read-only has changed none.
    (prefix / "share" / "foo" / "7").chmod(0o400)
    prefixes.require_replaceable(prefix)
    assert len(hashed) == FILES


def test_links_of_packages_are_compared(tmp_path: Path) -> None:
    prefix = tmp_path / "env"
    payload = tmp_path / "payload"
    payload.mkdir()
    (payload / "real").write_text("x", encoding="utf-8")
    (payload / "link").symlink_to("real")
    (payload / "dangling").symlink_to("nowhere")
    (tmp_path / "made" / "noarch").mkdir(parents=True)
    assemble_package(
        "linked",
        "1.0",
        "noarch",
        "h0_0",
        str(tmp_path / "made" / "noarch"),
        files_dir=str(payload),
        noarch="generic",
    )
    url = make_channel(tmp_path / "channel", tmp_path / "made" / "noarch" / "linked-1.0-h0_0.conda")
    conda_environment.create(prefix, ["linked"], [url])
    assert (prefix / "link").readlink() == Path("real")
    assert list(edits.differences(prefix, intact.records(prefix), {})) == []
    (prefix / "link").unlink()
    (prefix / "link").symlink_to("other")
    assert list(edits.differences(prefix, intact.records(prefix), intact.noted_states(prefix))) == [
        ("link", False)
    ]


def test_what_is_changed_while_the_new_environment_is_built_is_left_alone(
    tmp_path: Path, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = tmp_path / "env"
    conda_environment.create(prefix, ["foo 1.0"], [channel])
    mark = intact.mark

    def marking(*arguments: Any) -> None:
        mark(*arguments)
        (prefix / "share" / "foo" / "7").write_text("mine", encoding="utf-8")

    monkeypatch.setattr(intact, "mark", marking)
    with pytest.raises(ConfigurationError, match="changed after vllm-build made it: share/foo/7"):
        conda_environment.create(prefix, ["foo 2.0"], [channel])
    assert (prefix / "share" / "foo" / "7").read_text(encoding="utf-8") == "mine"
    assert beside(prefix) == []


def test_an_update_does_not_replace_what_was_changed(
    tmp_path: Path, channel: str, science: Path
) -> None:
    mine = science / "share" / "foo" / "7"
    mine.write_text("mine", encoding="utf-8")
    with pytest.raises(
        ConfigurationError,
        match=r"would replace files of packages that were changed in .*: share/foo/7",
    ):
        conda_environment.create(science, ["foo 2.0"], [channel], update=True)
    assert mine.read_text(encoding="utf-8") == "mine"
    # What the message says.
    mine.rename(tmp_path / "mine")
    conda_environment.create(science, ["foo 2.0"], [channel], update=True)
    assert version_of(science) == "2.0"


def test_an_edit_that_an_update_kept_is_noticed_later(tmp_path: Path, channel: str) -> None:
    prefix = tmp_path / "env"
    scipy = make_channel(
        tmp_path / "theirs", make_package(tmp_path / "made", "scipy", {"lib/scipy": "s"})
    )
    conda_environment.create(prefix, ["scipy", "foo 1.0"], [scipy, channel])
    (prefix / "lib" / "scipy").write_text("m", encoding="utf-8")
    conda_environment.create(prefix, ["foo 2.0"], [scipy, channel], update=True)
    assert (prefix / "lib" / "scipy").read_text(encoding="utf-8") == "m"
    with pytest.raises(ConfigurationError, match="changed after vllm-build made it: lib/scipy"):
        conda_environment.create(prefix, ["foo 2.0"], [scipy, channel])


def test_an_edit_reaches_neither_other_environments_nor_the_cache(
    tmp_path: Path, channel: str
) -> None:
    for name in ("one", "two"):
        conda_environment.create(tmp_path / name, ["foo 1.0"], [channel])
    with (tmp_path / "one" / "share" / "foo" / "7").open("r+", encoding="utf-8") as stream:
        stream.write("bad")
    assert version_of(tmp_path / "two") == "1.0"
    extracted = list((tmp_path / "cache" / "extracted").glob("*/share/foo/7"))
    assert [path.read_text(encoding="utf-8") for path in extracted] == ["1.0"]
    assert {path.stat().st_nlink for path in (tmp_path / "two").rglob("*") if path.is_file()} == {1}


def test_an_edited_cache_is_not_installed(tmp_path: Path, channel: str) -> None:
    conda_environment.create(tmp_path / "one", ["foo 1.0"], [channel])
    (extracted,) = (tmp_path / "cache" / "extracted").glob("*/share/foo/7")
    edited_in_place(extracted)
    conda_environment.create(tmp_path / "two", ["foo 1.0"], [channel])
    assert version_of(tmp_path / "two") == "1.0"


@pytest.mark.usefixtures("_one_channel")
def test_a_prefix_in_another_environment_is_refused(
    tmp_path: Path, channel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    conda_environment.create(base, ["foo 1.0"], [channel])
    before = below(base)
    (tmp_path / "link").symlink_to(base / "share")
    for prefix in (
        base / "in",
        base / "share" / "deep" / "in",
        base / "envs",
        tmp_path / "link" / "in",
    ):
        assert cli.main(install_command(prefix, channel)) == errors.ConfigurationError.exit_code
        assert "lies in the conda environment" in capsys.readouterr().err
    assert below(base) == before
    # conda itself puts environments there.
    assert cli.main(install_command(base / "envs" / "in", channel)) == 0


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


@pytest.fixture
def _one_channel(channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_channel, "url", lambda *_: channel)


@pytest.mark.usefixtures("_one_channel")
@pytest.mark.parametrize("linked", [False, True])
def test_a_prefix_that_holds_the_cache_or_the_output_is_refused(
    tmp_path: Path,
    channel: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    linked: bool,
) -> None:
    holder = tmp_path / "holder"
    holder.mkdir()
    if linked:
        (holder / "cache").symlink_to(tmp_path / "cache")
        (holder / "output").symlink_to(channel.removeprefix("file://"))
    else:
        shutil.copytree(channel.removeprefix("file://"), holder / "output")
    output = ("--output", str(holder / "output"), "--force")
    assert (
        cli.main(install_command(holder, channel, *output)) == errors.ConfigurationError.exit_code
    )
    assert "is or holds a channel" in capsys.readouterr().err
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(holder / "cache"))
    assert (
        cli.main(install_command(holder, channel, "--force")) == errors.ConfigurationError.exit_code
    )
    assert "is or holds the cache" in capsys.readouterr().err
    assert (holder / "output").is_dir()


@pytest.mark.parametrize("spec", ["nothing-has-this", "bar"])
def test_an_installation_that_fails_leaves_nothing(tmp_path: Path, channel: str, spec: str) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(ToolchainError):
        conda_environment.create(place / "new" / "folders" / "env", [spec], [channel])
    assert below(place) == {}


def test_a_lock_that_an_earlier_version_left_is_no_file_of_the_users(
    tmp_path: Path, channel: str
) -> None:
    prefix = tmp_path / "env"
    conda_environment.create(prefix, ["foo 1.0"], [channel])
    (prefix / ".in.vllm-build.lock").touch()
    conda_environment.create(prefix, ["foo 2.0"], [channel])
    (prefix / ".in.vllm-build.lock").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="added after"):
        conda_environment.create(prefix, ["foo 2.0"], [channel])


def test_byte_code_is_not_an_addition(tmp_path: Path, channel: str) -> None:
    prefix = tmp_path / "env"
    conda_environment.create(prefix, ["foo 1.0"], [channel])
    (prefix / "share" / "__pycache__").mkdir()
    (prefix / "share" / "__pycache__" / "x.cpython-311.pyc").touch()
    conda_environment.create(prefix, ["foo 2.0"], [channel])
    assert version_of(prefix) == "2.0"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"name": "foo", "paths_data": []}',
        '{"name": "foo", "paths_data": {"paths": [1]}}',
    ],
)
def test_an_environment_of_ours_that_nothing_can_be_compared_with_is_replaced_on_demand(
    tmp_path: Path, channel: str, text: str
) -> None:
    prefix = tmp_path / "env"
    conda_environment.create(prefix, ["foo 1.0"], [channel])
    (prefix / "share" / "foo" / "3").write_text("mine", encoding="utf-8")
    (record,) = (prefix / "conda-meta").glob("foo-*.json")
    record.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="cannot be compared with its records"):
        conda_environment.create(prefix, ["foo 1.0"], [channel])
    assert (prefix / "share" / "foo" / "3").read_text(encoding="utf-8") == "mine"
    conda_environment.create(prefix, ["foo 1.0"], [channel], force=True)
    assert version_of(prefix) == "1.0"


def test_paths_that_are_no_prefix_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "user"))
    (tmp_path / "home" / "user").mkdir(parents=True)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path / "folder")
    before = below(tmp_path)
    wrong = {
        Path("/"): "root folder",
        root: "source tree",
        root.parent: "source tree",
        tmp_path / "home" / "user": "home folder",
        tmp_path / "home": "home folder",
        tmp_path / "cache": "cache",
        tmp_path / "folder": "current folder",
        Path(): "current folder",
        Path(".."): "holds",
        tmp_path / "file": "is a file",
        tmp_path / "file" / "env": "is not a folder",
        tmp_path / "link": "is a link",
        tmp_path / "dangling": "is a link",
        tmp_path / "with space": "has a space in its path",
        tmp_path / "two:paths": "has ':' in its path",
        tmp_path / "line\nbreak": r"has '\\n' in its path",
        tmp_path / "o": "channel",
        tmp_path / "cache" / "env": "lies in the cache",
        tmp_path / "cache" / "extracted" / "env": "lies in the cache",
        tmp_path / os.fsdecode(b"caf\xe9"): "has a byte that is not UTF-8 in its path",
    }
    for path, match in wrong.items():
        with pytest.raises(ConfigurationError, match=match):
            conda_environment.create(
                path, ["foo"], ["file:///nowhere"], force=True, keep=[tmp_path / "o"]
            )
    assert below(tmp_path) == before


def test_a_folder_that_cannot_be_written_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)
    with pytest.raises(ConfigurationError, match="cannot be written to"):
        prefixes.check(tmp_path / "env")
    monkeypatch.undo()
    monkeypatch.setattr(Path, "is_mount", lambda self: self.name == "env")
    (tmp_path / "env").mkdir()
    with pytest.raises(ConfigurationError, match="mount point"):
        prefixes.check(tmp_path / "env")


def test_a_relative_path_is_the_one_that_is_meant(
    tmp_path: Path, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "here").symlink_to(tmp_path / "deep" / "er")
    monkeypatch.chdir(tmp_path / "here")
    assert prefixes.check(Path("env")) == tmp_path / "deep" / "er" / "env"
    assert prefixes.check(Path(f"{tmp_path}/here/../env")) == tmp_path / "deep" / "env"
    conda_environment.create(Path("env"), ["foo 1.0"], [channel])
    assert version_of(tmp_path / "deep" / "er" / "env") == "1.0"


@pytest.fixture
def science(tmp_path: Path, channel: str) -> Path:
    """An environment that another program made, from another channel: scipy, foo 1.0, and a file of pip's."""
    prefix = tmp_path / "science"
    scipy = make_package(tmp_path / "made", "scipy", {"lib/scipy": "s"})
    conda_environment.create(
        prefix, ["scipy", "foo 1.0"], [make_channel(tmp_path / "theirs", scipy), channel]
    )
    (prefix / intact.MARKER).unlink()
    (prefix / "lib" / "of_pip").write_text("pip", encoding="utf-8")
    (prefix / "lib" / "link").symlink_to("of_pip")
    return prefix


def test_an_update_keeps_what_is_there(tmp_path: Path, channel: str, science: Path) -> None:
    # Its package need not be had again, nor its channel.
    for path in (tmp_path / "theirs" / "noarch").glob("scipy-*.conda"):
        path.unlink()
    records = conda_environment.create(science, ["foo 2.0"], [channel], update=True)
    assert {(record["name"], record["version"]) for record in records} == {
        ("foo", "2.0"),
        ("scipy", "1.0"),
    }
    assert version_of(science) == "2.0"
    assert (science / "lib" / "scipy").read_text(encoding="utf-8") == "s"
    assert (science / "lib" / "link").readlink() == Path("of_pip")
    assert (science / "lib" / "of_pip").read_text(encoding="utf-8") == "pip"
    # It is as much theirs as before.
    with pytest.raises(ConfigurationError, match="did not install"):
        conda_environment.create(science, ["foo 2.0"], [channel])


def test_an_update_that_fails_changes_nothing(channel: str, science: Path) -> None:
    before = below(science)
    for spec in ("bar", "foo 3.0"):
        with pytest.raises(ToolchainError):
            conda_environment.create(science, [spec], [channel], update=True)
    (science / "conda-meta" / "pinned").write_text("# mine\n\nfoo 1.0.*\n", encoding="utf-8")
    with pytest.raises(ToolchainError):
        conda_environment.create(science, ["foo 2.0"], [channel], update=True)
    (science / "conda-meta" / "pinned").unlink()
    assert below(science) == before
    # What was damaged before does not stand in the way.
    (science / "lib" / "scipy").write_text("mine", encoding="utf-8")
    conda_environment.create(science, ["foo 2.0"], [channel], update=True)
    assert (science / "lib" / "scipy").read_text(encoding="utf-8") == "mine"


def test_an_update_of_an_environment_of_ours_knows_what_others_added(
    tmp_path: Path, channel: str
) -> None:
    prefix = tmp_path / "env"
    conda_environment.create(prefix, ["foo 1.0"], [channel], update=True)
    added = prefix / "conda-meta" / "scipy-1.0-h0_0.json"
    record = json.loads(
        next((prefix / "conda-meta").glob("foo-*.json")).read_text(encoding="utf-8")
    )
    record |= {
        "name": "scipy",
        "fn": "scipy-1.0-h0_0.conda",
        "files": [],
        "paths_data": {"paths_version": 1, "paths": []},
    }
    added.write_text(json.dumps(record), encoding="utf-8")
    conda_environment.create(prefix, ["foo 2.0"], [channel], update=True)
    assert version_of(prefix) == "2.0"
    with pytest.raises(ConfigurationError, match="added after vllm-build made it: scipy"):
        conda_environment.create(prefix, ["foo 2.0"], [channel])


def test_what_is_no_environment_is_not_updated(tmp_path: Path, channel: str) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text").touch()
    with pytest.raises(ConfigurationError, match="is no conda environment"):
        conda_environment.create(tmp_path / "thesis", ["foo"], [channel], update=True)
    (tmp_path / "thesis" / "conda-meta").mkdir()
    (tmp_path / "thesis" / "conda-meta" / "x.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="cannot be updated"):
        conda_environment.create(tmp_path / "thesis", ["foo"], [channel], update=True)
    assert sorted(below(tmp_path / "thesis")) == ["conda-meta", "conda-meta/x.json", "text"]


def test_a_second_installation_is_refused_while_one_runs(tmp_path: Path, channel: str) -> None:
    prefix = tmp_path / "env"
    conda_environment.create(prefix, ["foo 1.0"], [channel])
    with prefixes.opened(prefix), pytest.raises(BusyError, match="env"):
        conda_environment.create(prefix, ["foo 2.0"], [channel])
    assert version_of(prefix) == "1.0"


def test_a_work_folder_of_somebody_elses_is_left_alone(tmp_path: Path, channel: str) -> None:
    (tmp_path / ".env.vllm-build").mkdir()
    (tmp_path / ".env.vllm-build" / "diary").write_text("x", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="did not make: diary"):
        conda_environment.create(tmp_path / "env", ["foo 1.0"], [channel])
    assert (tmp_path / ".env.vllm-build" / "diary").is_file()


def test_a_rename_that_fails_brings_the_old_environment_back(
    tmp_path: Path, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = tmp_path / "env"
    conda_environment.create(prefix, ["foo 1.0"], [channel])
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise PermissionError
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(PermissionError):
        conda_environment.create(prefix, ["foo 2.0"], [channel])
    assert version_of(prefix) == "1.0"
    assert beside(prefix) == []


def test_a_package_that_cannot_be_linked_leaves_the_environment(
    tmp_path: Path, channel: str
) -> None:
    prefix = tmp_path / "env"
    conda_environment.create(prefix, ["foo 1.0"], [channel])
    broken = make_package(tmp_path / "made", "broken", {"x": "x"})
    broken.write_bytes(b"no zip archive")
    other = make_channel(tmp_path / "other", make_package(tmp_path / "made2", "broken", {"x": "x"}))
    target = tmp_path / "other" / "noarch" / broken.name
    index = target.parent / "repodata.json"
    document = json.loads(index.read_text(encoding="utf-8"))
    target.write_bytes(broken.read_bytes())
    record = document["packages.conda"][broken.name]
    record |= {"size": target.stat().st_size, "sha256": sha256_of(target)}
    index.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(PackageTestError, match="cannot be installed") as caught:
        conda_environment.create(prefix, ["broken"], [other])
    assert "Traceback" not in str(caught.value)
    assert version_of(prefix) == "1.0"


def start(root: Path, *arguments: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(root / "scripts")}
    return subprocess.Popen(
        [sys.executable, str(root / "tests" / "support" / "install_child.py"), *arguments], env=env
    )


@pytest.mark.parametrize(
    ("when", "number", "found"),
    [("before", 1, "1.0"), ("after", 1, "1.0"), ("before", 2, "1.0"), ("after", 2, "2.0")],
)
def test_killed_at_a_rename(
    tmp_path: Path, channel: str, root: Path, when: str, number: int, found: str
) -> None:
    prefix = tmp_path / "env"
    conda_environment.create(prefix, ["foo 1.0"], [channel])
    assert start(root, str(prefix), "foo 2.0", channel, when, str(number)).wait() == -9
    # The next start, whatever comes of it.
    with pytest.raises(ToolchainError):
        conda_environment.create(prefix, ["nothing-has-this"], [channel])
    assert version_of(prefix) == found
    assert beside(prefix) == []


def test_a_new_environment_at_the_place_of_an_interrupted_one_is_not_mistaken(
    tmp_path: Path, channel: str, root: Path
) -> None:
    prefix, work = tmp_path / "env", tmp_path / ".env.vllm-build"
    conda_environment.create(prefix, ["foo 1.0"], [channel])
    assert start(root, str(prefix), "foo 2.0", channel, "after", "1").wait() == -9
    prefix.mkdir()
    with pytest.raises(ConfigurationError, match="was interrupted"):
        conda_environment.create(prefix, ["foo 2.0"], [channel])
    assert version_of(work / "old") == "1.0"
    prefix.rmdir()
    conda_environment.create(prefix, ["foo 2.0"], [channel])
    assert version_of(prefix) == "2.0"


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path, channel: str, root: Path) -> None:
    prefix = tmp_path / "env"
    conda_environment.create(prefix, ["foo 1.0"], [channel])
    begin = time.monotonic()
    assert start(root, str(prefix), "foo 2.0", channel).wait() == 0
    whole = time.monotonic() - begin
    chance = random.Random(13)  # noqa: S311 -- moments, not secrets
    killed = 0
    for number in range(KILLS):
        process = start(root, str(prefix), f"foo {1 + number % 2}.0", channel)
        time.sleep(chance.uniform(0.2, 1.0) * whole)
        process.kill()
        killed += process.wait() == -9
        # Between the renames the prefix is away; the next start brings it back, once the orphan,
        # which has the lock, has ended.
        while True:
            try:
                with prefixes.opened(prefix):
                    break
            except BusyError:
                time.sleep(0.05)
        assert version_of(prefix) in ("1.0", "2.0")
        assert beside(prefix) == []
    assert killed
    conda_environment.create(prefix, ["foo 2.0"], [channel])
    assert version_of(prefix) == "2.0"
