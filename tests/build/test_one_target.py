# SPDX-License-Identifier: Apache-2.0
"""The device of a build is resolved once: commands build for the target that setup.py found."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from reuse_files import Build
from setuptools import Distribution, build_meta

from vllm_build import backend
from vllm_build.settings.build_settings import Settings
from vllm_build.target import device
from vllm_build.wheels import distribution

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vllm_build.target.device import Target


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of each call that resolves a device, in order."""
    calls: list[Settings] = []
    real: Callable[..., Target] = device.resolve

    def counted(settings: Settings, **options: Any) -> Target:
        calls.append(settings)
        return real(settings, **options)

    monkeypatch.setattr(device, "resolve", counted)
    return calls


def built(root: Path, settings: Settings, folder: Path) -> Distribution:
    """Do what ``setup()`` does with the arguments for ``build_ext``."""
    made = Distribution(distribution.arguments(root, settings, ["setup.py", "build_ext"]))
    command: Any = made.get_command_obj("build_ext")
    command.build_lib = str(folder)
    made.run_command("build_ext")
    return made


def test_a_build_resolves_the_device_once(
    root: Path, tools: Path, tmp_path: Path, asked: list[Settings]
) -> None:
    assert tools.is_dir()
    settings = replace(
        Settings.from_environ(os.environ),
        target_device="cpu",
        max_jobs=2,
        build_root=tmp_path / "build",
    )
    made = built(root, settings, tmp_path / "lib")
    assert asked == [settings]
    assert (tmp_path / "lib" / "vllm" / "_build_info" / "vllm-kernels.json").is_file()
    assert made.get_version().endswith("+cpu")


def test_a_build_of_what_cannot_be_reused_resolves_it_once(
    root: Path, tools: Path, tmp_path: Path, asked: list[Settings]
) -> None:
    assert tools.is_dir()
    settings = replace(
        Settings.from_environ(os.environ),
        target_device="cpu",
        max_jobs=1,
        build_root=tmp_path / "build",
        precompiled_location=str(Build().wheel(tmp_path)),
        precompiled_partial=True,
    )
    built(root, settings, tmp_path / "lib")
    assert asked == [settings]
    assert (tmp_path / "lib" / "vllm" / "_build_info" / "vllm-kernels.json").is_file()


def test_a_command_builds_by_what_setup_py_has_read(
    root: Path, tools: Path, monkeypatch: pytest.MonkeyPatch, asked: list[Settings]
) -> None:
    """A variable that changes between setup.py and its command has no effect.

    Otherwise the metadata would not describe the library.
    """
    assert tools.is_dir()
    made = Distribution(
        distribution.arguments(
            root, Settings(target_device="cpu", max_jobs=2), ["setup.py", "build_ext"]
        )
    )
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cuda")
    monkeypatch.setenv("MAX_JOBS", "7")
    command: Any = made.get_command_obj("build_ext")
    command.ensure_finalized()
    assert command.compute_num_jobs() == (2, None)
    assert len(asked) == 1


@pytest.mark.parametrize(
    "hook", ["get_requires_for_build_wheel", "get_requires_for_build_editable"]
)
def test_a_hook_resolves_the_device_once(
    root: Path, tools: Path, monkeypatch: pytest.MonkeyPatch, asked: list[Settings], hook: str
) -> None:
    assert tools.is_dir()
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    versions = []

    def setup(*_: Any) -> list[str]:
        # setuptools' hook runs setup.py to find the build requirements.
        versions.append(
            distribution.arguments(
                root, Settings.from_environ(os.environ), ["setup.py", "egg_info"]
            )["version"]
        )
        return []

    monkeypatch.setattr(build_meta, hook, setup)
    assert getattr(backend, hook)() == []
    assert len(asked) == 1
    assert versions[0].endswith("+cpu")
