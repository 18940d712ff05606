# SPDX-License-Identifier: Apache-2.0
"""Build contract, section 4: one build folder per configuration; interpreters without a GIL."""

from __future__ import annotations

import errno
import sysconfig
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version

from vllm_build.kernels import kernels_table, plan_resolver
from vllm_build.native import build_configuration
from vllm_build.native.build_configuration import Configuration
from vllm_build.settings.build_settings import Settings
from vllm_build.target.device import Target
from vllm_build.target.toolkits.toolkit_search import Toolkit
from vllm_build.util import removal
from vllm_build.util.errors import ConfigurationError, ResourceError
from vllm_build.wheels import distribution

if TYPE_CHECKING:
    from tests.build.conftest import Torch


@pytest.fixture
def config(root: Path, bare: Path, tmp_path: Path) -> Configuration:
    assert bare.is_dir()
    return Configuration.of(root, Settings(target_device="cpu", build_root=tmp_path / "build"))


def cuda(version: str) -> Target:
    return Target(
        "cuda",
        "asked for",
        Toolkit("cuda", Version(version), Path("/cuda"), Path("/cuda/bin/nvcc"), "CUDA_HOME"),
    )


def test_key_of_the_cpu(config: Configuration, tmp_path: Path) -> None:
    assert config.key == "cpu-abi3-relwithdebinfo"
    assert config.folder == tmp_path / "build" / config.key
    assert config.suffix == ".abi3.so"
    assert config.libraries(Path("/x")) == [Path("/x/vllm/_C.abi3.so")]


def test_the_folder_is_below_the_tree_unless_told_otherwise(
    config: Configuration, root: Path
) -> None:
    assert replace(config, settings=Settings()).folder == root / "build" / config.key


def test_every_two_configurations_have_two_folders(config: Configuration) -> None:
    def gpu(version: str, *targets: str) -> Configuration:
        return replace(
            config,
            target=cuda(version),
            plan=replace(config.plan, device="cuda", toolkit_version=version, targets=targets),
        )

    configurations = [
        config,
        replace(config, build_type="Debug"),
        replace(config, build_type="Release"),
        replace(config, abi="cpython-313t-x86_64-linux-gnu"),
        gpu("12.9", "8.0"),
        gpu("12.8", "8.0"),
        gpu("12.9", "8.0", "9.0a"),
        gpu("12.9", "8.0", "9.0"),
        gpu("12.9", "7.5", "8.0", "8.6", "8.9", "9.0a", "10.0f"),
        gpu("12.9", "7.5", "8.0", "8.6", "8.9", "9.0a", "10.0f", "12.0f+PTX"),
        replace(gpu("12.9", "8.0"), build_type="Debug"),
    ]
    keys = [one.key for one in configurations]
    assert len(set(keys)) == len(keys)
    assert "cuda12.9-8.0-abi3-relwithdebinfo" in keys
    assert all(len(key) < 80 and "/" not in key and ";" not in key for key in keys)


@pytest.mark.parametrize(
    ("settings", "debug", "expected"),
    [
        (Settings(), False, "RelWithDebInfo"),
        (Settings(), True, "Debug"),
        (Settings(build_type="Release"), True, "Release"),
        (Settings(build_type="Release", cmake_args=("-DCMAKE_BUILD_TYPE=Debug",)), False, "Debug"),
        (Settings(cmake_args=("-D", "CMAKE_BUILD_TYPE:STRING=Release")), False, "Release"),
    ],
)
def test_build_type(
    root: Path, bare: Path, settings: Settings, *, debug: bool, expected: str
) -> None:
    assert bare.is_dir()
    assert (
        Configuration.of(root, replace(settings, target_device="cpu"), debug=debug).build_type
        == expected
    )


def test_the_folder_is_made(config: Configuration) -> None:
    assert config.prepare_folder().is_dir()
    assert [path.name for path in config.folder.iterdir()] == [removal.MARKER]
    assert config.prepare_folder() == config.folder


def test_a_folder_of_something_else_is_refused_and_one_of_an_earlier_version_is_used(
    config: Configuration,
) -> None:
    config.folder.mkdir(parents=True)
    (config.folder / "letter.txt").touch()
    with pytest.raises(ConfigurationError, match=r"VLLM_BUILD_ROOT.* did not make: letter\.txt"):
        config.prepare_folder()
    assert [path.name for path in config.folder.iterdir()] == ["letter.txt"]
    (config.folder / "CMakeCache.txt").touch()
    assert config.prepare_folder() == config.folder


def test_a_folder_that_cannot_be_made(config: Configuration) -> None:
    config.folder.parent.write_text("a file", encoding="utf-8")
    with pytest.raises(
        ConfigurationError,
        match=r"build folder .* cannot be written: (Not a directory|File exists)",
    ) as caught:
        config.prepare_folder()
    assert "VLLM_BUILD_ROOT" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EACCES, ConfigurationError),
        (errno.EROFS, ConfigurationError),
        (errno.ENOSPC, ResourceError),
    ],
)
def test_a_folder_that_cannot_be_written(
    config: Configuration, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, "refused")

    config.prepare_folder()
    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(kind, match="build folder"):
        config.prepare_folder()


@pytest.mark.parametrize(
    ("variables", "abi", "suffix"),
    [
        ({"Py_GIL_DISABLED": 0, "SOABI": "cpython-311-x86_64-linux-gnu"}, "abi3", ".abi3.so"),
        ({"Py_GIL_DISABLED": None}, "abi3", ".abi3.so"),
        (
            {"Py_GIL_DISABLED": 1, "SOABI": "cpython-313t-x86_64-linux-gnu"},
            "cpython-313t-x86_64-linux-gnu",
            ".so",
        ),
    ],
)
def test_free_threaded_interpreters(
    root: Path,
    bare: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, Any],
    abi: str,
    suffix: str,
) -> None:
    assert bare.is_dir()
    real = sysconfig.get_config_var
    monkeypatch.setattr(
        sysconfig,
        "get_config_var",
        lambda name: variables[name] if name in variables else real(name),
    )
    config = Configuration.of(root, Settings(target_device="cpu"))
    assert (config.abi, config.suffix) == (abi, suffix)
    settings = Settings(target_device="cpu")
    arguments = distribution.arguments(root, settings, ["setup.py", "bdist_wheel"])
    limited = abi == "abi3"
    assert arguments["options"] == ({"bdist_wheel": {"py_limited_api": "cp310"}} if limited else {})
    assert [module.py_limited_api for module in arguments["ext_modules"]] == [limited]


def test_a_free_threaded_interpreter_that_does_not_name_its_abi(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        sysconfig, "get_config_var", lambda name: 1 if name == "Py_GIL_DISABLED" else None
    )
    with pytest.raises(ConfigurationError, match="no SOABI"):
        build_configuration.python_abi()


def test_the_plan_is_that_of_the_device(root: Path, bare: Path, torch: Torch) -> None:
    torch(bare, "2.11.0+cpu")
    config = Configuration.of(root, Settings())
    assert config.plan == plan_resolver.resolve(kernels_table.load(root), "cpu")
    assert config.target.torch is not None
