# SPDX-License-Identifier: Apache-2.0
"""Installations that run at the same time, fail at a rename, or are killed."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from install_scene import (  # noqa: F401 -- fixtures
    beside,
    channel_fixture,
    own_cache_fixture,
    start,
    version_of,
)

from vllm_build.conda.environments import conda_environment, prefix_site
from vllm_build.util.errors import BusyError, ConfigurationError, ToolchainError

KILLS = 12


def test_a_second_installation_is_refused_while_one_runs(tmp_path: Path, channel: str) -> None:
    prefix = tmp_path / "env"
    conda_environment.create(prefix, ["foo 1.0"], [channel])
    with prefix_site.opened(prefix), pytest.raises(BusyError, match="env"):
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
    # The next installation recovers, even if it fails.
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
        # Between the renames there is no prefix. The next start restores it once the orphan, which
        # holds the lock, has ended.
        while True:
            try:
                with prefix_site.opened(prefix):
                    break
            except BusyError:
                time.sleep(0.05)
        assert version_of(prefix) in ("1.0", "2.0")
        assert beside(prefix) == []
    assert killed
    conda_environment.create(prefix, ["foo 2.0"], [channel])
    assert version_of(prefix) == "2.0"
