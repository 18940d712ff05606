# SPDX-License-Identifier: Apache-2.0
"""Build contract, section 3: the base version, with and without git.

It does not depend on git or on the state of the tree.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _git(folder: Path, *words: str) -> None:
    env = {
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "HOME": str(folder),
    }
    identity = [
        "-c",
        "user.name=n",
        "-c",
        "user.email=e@example.invalid",
        "-c",
        "init.defaultBranch=main",
        "-c",
        "commit.gpgsign=false",
    ]
    subprocess.run(["git", *identity, *words], cwd=folder, env=env, check=True, capture_output=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A repository with two commits, this library and another VERSION."""
    source = request.config.rootpath
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(
        source / "scripts",
        folder / "scripts",
        ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
    )
    (folder / "VERSION").write_text("4.5.6\n", encoding="utf-8")
    _git(folder, "init", "--quiet")
    for number in range(2):
        (folder / "README").write_text(str(number), encoding="utf-8")
        _git(folder, "add", ".")
        _git(folder, "commit", "--quiet", "-m", str(number))
    return folder


def _clone(repository: Path, target: Path, *options: str) -> Path:
    _git(repository, "clone", "--quiet", *options, repository.as_uri(), str(target))
    return target


def _full(repository: Path, target: Path) -> Path:
    return _clone(repository, target)


def _shallow(repository: Path, target: Path) -> Path:
    return _clone(repository, target, "--depth", "1")


def _dirty(repository: Path, target: Path) -> Path:
    (_clone(repository, target) / "README").write_text("changed", encoding="utf-8")
    return target


def _detached(repository: Path, target: Path) -> Path:
    _git(_clone(repository, target), "checkout", "--quiet", "HEAD~1")
    return target


def _tarball(repository: Path, target: Path) -> Path:
    archive = target.with_suffix(".tar")
    _git(repository, "archive", "--output", str(archive), "HEAD")
    target.mkdir()
    shutil.unpack_archive(archive, target)
    return target


def _below_another_repository(repository: Path, target: Path) -> Path:
    """An unpacked sdist inside another project's repository, whose tags must have no effect."""
    target.mkdir()
    _git(target, "init", "--quiet")
    (target / "other").write_text("", encoding="utf-8")
    _git(target, "add", ".")
    _git(target, "commit", "--quiet", "-m", "other")
    _git(target, "tag", "v99.0")
    return _tarball(repository, target / "inner")


_STATES = [_full, _shallow, _dirty, _detached, _tarball, _below_another_repository]


_PROGRAM = (
    "from vllm_build.util import environ, paths; from vllm_build.settings import build_settings; "
    "from vllm_build.project import distribution_version; "
    "print(distribution_version.of_tree(paths.source_root(), "
    "build_settings.Settings.from_environ(environ.snapshot())))"
)


@pytest.mark.parametrize("state", _STATES, ids=lambda state: state.__name__.strip("_"))
@pytest.mark.parametrize("with_git", [True, False])
def test_base_version_in_every_state_of_a_tree(
    repository: Path, tmp_path: Path, state: Callable[[Path, Path], Path], *, with_git: bool
) -> None:
    folder = state(repository, tmp_path / "tree")
    env = {
        "PATH": os.environ["PATH"] if with_git else "",
        "PYTHONPATH": str(folder / "scripts"),
        "VLLM_TARGET_DEVICE": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env=env,
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "4.5.6+cpu\n"
