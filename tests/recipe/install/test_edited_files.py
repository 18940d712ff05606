# SPDX-License-Identifier: Apache-2.0
"""Edited files of packages: they are noticed, kept, and not installed elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conda_files import make_channel
from install_scene import (  # noqa: F401 -- fixtures
    FILES,
    below,
    beside,
    channel_fixture,
    edited_in_place,
    own_cache_fixture,
    version_of,
)
from rattler_build import assemble_package

from vllm_build.conda.environments import conda_environment, edits, intact, prefixes
from vllm_build.util.errors import ConfigurationError
from vllm_build.util.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable


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
        # The noted states do not apply to a copy, so its files are hashed.
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
    # Making a file read-only changes its state but not its content.
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
