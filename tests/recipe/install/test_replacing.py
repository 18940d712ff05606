# SPDX-License-Identifier: Apache-2.0
"""A new environment replaces one of ours when it is complete, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conda_files import PLACEHOLDER, make_channel, make_package, with_prefix
from install_scene import (  # noqa: F401 -- fixtures
    below,
    beside,
    channel_fixture,
    own_cache_fixture,
    version_of,
)

from vllm_build import cli
from vllm_build.conda.environments import conda_environment, intact
from vllm_build.util import errors
from vllm_build.util.errors import ConfigurationError, PackageTestError, ToolchainError
from vllm_build.util.files import sha256_of


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
    # Even --force keeps the folder if the new environment cannot be made.
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
