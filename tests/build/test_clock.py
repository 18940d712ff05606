# SPDX-License-Identifier: Apache-2.0
"""Times in the future, and trees that cannot be written: one message, or it works."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from trees import copy_tree

from vllm_build import backend
from vllm_build.settings.build_settings import Settings
from vllm_build.util import clock, paths
from vllm_build.util.errors import ConfigurationError
from vllm_build.wheels import distribution

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree" / "csrc" / "norm").mkdir(parents=True)
    (tmp_path / "build").mkdir()
    for name in (
        "tree/CMakeLists.txt",
        "tree/csrc/kernels.toml",
        "tree/csrc/norm/norm_cpu.cc",
        "build/build.ninja",
        "build/.ninja_log",
    ):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    "name",
    ["tree/CMakeLists.txt", "tree/csrc/norm/norm_cpu.cc", "build/build.ninja", "build/.ninja_log"],
)
def test_a_file_from_the_future(tree: Path, name: str) -> None:
    clock.require_past(tree / "tree", tree / "build")
    os.utime(tree / name, (time.time() + 3600,) * 2)
    with pytest.raises(
        ConfigurationError, match=r"newer than this machine's clock: .* by 3(600|599) s"
    ) as caught:
        clock.require_past(tree / "tree", tree / "build")
    # The remedy works.
    assert caught.value.remedy is not None
    subprocess.run(
        ["/bin/sh", "-c", caught.value.remedy.partition(": ")[2].replace("{}", "'{}'")], check=True
    )
    clock.require_past(tree / "tree", tree / "build")


def test_clocks_that_differ_a_little(tree: Path) -> None:
    os.utime(tree / "tree" / "CMakeLists.txt", (time.time() + 2,) * 2)
    clock.require_past(tree / "tree", tree / "never built")


def test_many_files_are_counted(tree: Path) -> None:
    for path in tree.rglob("*.*"):
        os.utime(path, (time.time() + 100,) * 2)
    with pytest.raises(ConfigurationError, match="and 2 more"):
        clock.require_past(tree / "tree", tree / "build")


def test_metadata_of_a_wheel_is_put_together_outside_of_the_tree(root: Path, bare: Path) -> None:
    assert bare.is_dir()
    with distribution.staging():
        options = distribution.arguments(root, Settings(target_device="empty"), ["setup.py"])[
            "options"
        ]
    assert options["egg_info"]["egg_base"] == options["build"]["build_base"]


def test_a_tree_that_cannot_be_written_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(*_: object) -> str:
        raise OSError(30, "Read-only file system", "vllm/_version.py")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(backend.build_meta, "build_editable", fail)
    monkeypatch.setattr(paths, "source_root", lambda: tmp_path / "gone")
    with pytest.raises(SystemExit) as caught:
        backend.build_editable("w")
    assert caught.value.code == ConfigurationError.exit_code
    assert "cannot be written: an editable install writes" in capsys.readouterr().err
    # Any other failure is not about the tree.
    monkeypatch.setattr(paths, "source_root", lambda: tmp_path)
    with pytest.raises(SystemExit) as caught:
        backend.build_editable("w")
    assert caught.value.code == ConfigurationError.exit_code
    said = capsys.readouterr().err
    assert "vllm/_version.py: Read-only file system" in said
    assert "an editable install writes" not in said
    assert "HOME" not in said, "a tree below the home folder is not named by HOME"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["wheel", "-w", "{}/w"], 0, "Successfully built vllm"),
        (["install", "--target", "{}/t", "-e"], 1, "cannot be written"),
    ],
)
def test_a_tree_on_a_read_only_mount(
    tmp_path: Path, words: list[str], status: int, said: str
) -> None:
    tree = copy_tree(tmp_path / "tree", "tests")
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(tree)]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip(
            "this machine lets no user mount a file system of their own (unshare --user --mount)"
        )
    pip = [
        sys.executable,
        "-m",
        "pip",
        words[0],
        "--no-build-isolation",
        "--no-deps",
        *(word.format(tmp_path) for word in words[1:]),
        str(tree),
    ]
    done = subprocess.run(
        [*inside, *pip],
        cwd=tmp_path,
        env={**os.environ, "VLLM_TARGET_DEVICE": "empty"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
