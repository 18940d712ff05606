# SPDX-License-Identifier: Apache-2.0
"""Paths that can be a prefix, and paths that are refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from install_scene import (  # noqa: F401 -- fixtures
    below,
    channel_fixture,
    install_command,
    one_channel_fixture,
    own_cache_fixture,
    version_of,
)

from vllm_build import cli
from vllm_build.conda.environments import conda_environment, prefixes
from vllm_build.util import errors
from vllm_build.util.errors import ConfigurationError


@pytest.mark.usefixtures("one_channel")
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
        assert "is inside the conda environment" in capsys.readouterr().err
    assert below(base) == before
    # conda puts its environments there.
    assert cli.main(install_command(base / "envs" / "in", channel)) == 0


@pytest.mark.usefixtures("one_channel")
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
    assert "is or contains a channel" in capsys.readouterr().err
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(holder / "cache"))
    assert (
        cli.main(install_command(holder, channel, "--force")) == errors.ConfigurationError.exit_code
    )
    assert "is or contains the cache" in capsys.readouterr().err
    assert (holder / "output").is_dir()


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
        Path(".."): "contains",
        tmp_path / "file": "is a file",
        tmp_path / "file" / "env": "is not a folder",
        tmp_path / "link": "is a link",
        tmp_path / "dangling": "is a link",
        tmp_path / "with space": "has a space in its path",
        tmp_path / "two:paths": "has ':' in its path",
        tmp_path / "line\nbreak": r"has '\\n' in its path",
        tmp_path / "o": "channel",
        tmp_path / "cache" / "env": "is inside the cache",
        tmp_path / "cache" / "extracted" / "env": "is inside the cache",
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
