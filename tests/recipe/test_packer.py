# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.metadata
import os
from typing import TYPE_CHECKING

import pytest

from vllm_build.conda import package_channel, package_request, variants
from vllm_build.packing import packer_version, recipe_builder
from vllm_build.settings.build_settings import Settings
from vllm_build.util.errors import ToolchainError

if TYPE_CHECKING:
    from pathlib import Path

TREE = "0123456789ab"
PINNED = importlib.metadata.version("py-rattler-build")


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a rattler-build that runs ``script`` first on PATH."""
    path = folder / "rattler-build"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.setattr(recipe_builder, "find_program", lambda: str(path))


def test_the_bindings_and_the_pinned_version_keep_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_builder, "find_program", lambda: None)
    assert packer_version.recipe_digest(TREE) == TREE
    program(tmp_path, monkeypatch, f"echo rattler-build {PINNED}")
    assert packer_version.recipe_digest(TREE) == TREE


def test_another_version_gives_packages_another_name(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = package_request.Request(
        root,
        variants.load(root, "cpu"),
        package_channel.CONDA_FORGE,
        tmp_path,
        Settings.from_environ(os.environ),
    )
    monkeypatch.setattr(recipe_builder, "find_program", lambda: None)
    before = {output.filename for output in package_request.expected(request)}
    program(tmp_path, monkeypatch, "echo rattler-build 0.1.2")
    after = {output.filename for output in package_request.expected(request)}
    assert before.isdisjoint(after)
    assert len(packer_version.recipe_digest(TREE)) == len(TREE)
    program(tmp_path, monkeypatch, "echo rattler-build 0.1.3")
    assert after.isdisjoint(output.filename for output in package_request.expected(request))


@pytest.mark.parametrize("script", ["exit 3", "true", "echo lost >&2; exit 1"])
def test_a_program_that_says_no_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    program(tmp_path, monkeypatch, script)
    with pytest.raises(ToolchainError, match="--version failed"):
        packer_version.recipe_digest(TREE)


def test_a_program_that_does_not_start_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_builder, "find_program", lambda: str(tmp_path / "absent"))
    with pytest.raises(ToolchainError, match="cannot be started"):
        packer_version.recipe_digest(TREE)
