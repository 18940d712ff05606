# SPDX-License-Identifier: Apache-2.0
"""``--update`` changes an environment and keeps what others added to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conda_files import make_channel, make_package
from install_scene import (  # noqa: F401 -- fixtures
    below,
    channel_fixture,
    own_cache_fixture,
    science_fixture,
    version_of,
)

from vllm_build.conda.environments import conda_environment
from vllm_build.util.errors import ConfigurationError, ToolchainError


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
    # Follow the message's advice.
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


def test_an_update_keeps_what_is_there(tmp_path: Path, channel: str, science: Path) -> None:
    # scipy's package and channel need not be available any more.
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
    # The environment is still not ours.
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
    # Earlier damage does not prevent an update.
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
    with pytest.raises(ConfigurationError, match="is not a conda environment"):
        conda_environment.create(tmp_path / "thesis", ["foo"], [channel], update=True)
    (tmp_path / "thesis" / "conda-meta").mkdir()
    (tmp_path / "thesis" / "conda-meta" / "x.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="cannot be updated"):
        conda_environment.create(tmp_path / "thesis", ["foo"], [channel], update=True)
    assert sorted(below(tmp_path / "thesis")) == ["conda-meta", "conda-meta/x.json", "text"]
