# SPDX-License-Identifier: Apache-2.0
"""The PEP 517 hooks: the build requirements, and the arguments for setuptools."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from setuptools import Distribution, build_meta
from setuptools.command.egg_info import egg_info

from vllm_build import backend
from vllm_build.digests import tree_digests
from vllm_build.native import cmake
from vllm_build.project import distribution_version
from vllm_build.settings.build_settings import Settings
from vllm_build.target import device, torch_files
from vllm_build.util import paths
from vllm_build.util.errors import BusyError, ConfigurationError, ToolchainError
from vllm_build.wheels import cmake_ext, distribution, package_commands

if TYPE_CHECKING:
    from tests.build.conftest import Program, Torch

HEADER = (
    "#define TORCH_VERSION_MAJOR {}\n#define TORCH_VERSION_MINOR {}\n"
    "#define TORCH_VERSION_PATCH 0\n"
)


def with_headers(package: Path, release: tuple[int, int] = (2, 11)) -> None:
    """Add the headers and libraries that a compile needs to a torch."""
    marker = package / "include" / "torch" / "headeronly" / "version.h"
    marker.parent.mkdir(parents=True)
    marker.write_text(HEADER.format(*release), encoding="utf-8")
    (package / "lib").mkdir(exist_ok=True)
    (package / "lib" / "libtorch_cpu.so").touch()


@pytest.fixture
def hooks(bare: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replaces setuptools' hooks, which are not under test."""
    for name in ("wheel", "editable", "sdist"):
        monkeypatch.setattr(
            build_meta, f"get_requires_for_build_{name}", lambda _: ["from-setuptools"]
        )
    monkeypatch.setattr(cmake.sys, "executable", str(bare / "bin" / "python"))
    return bare


WHEEL_HOOKS = (backend.get_requires_for_build_wheel, backend.get_requires_for_build_editable)


@pytest.mark.parametrize("hook", WHEEL_HOOKS)
@pytest.mark.parametrize("name", ["tpu", "empty"])
def test_pure_devices_ask_for_nothing(
    hooks: Path, monkeypatch: pytest.MonkeyPatch, hook: Any, name: str
) -> None:
    assert hooks.is_dir()
    monkeypatch.setenv("VLLM_TARGET_DEVICE", name)
    assert hook() == ["from-setuptools"]


@pytest.mark.parametrize("hook", WHEEL_HOOKS)
def test_a_machine_without_anything_asks_for_all(
    hooks: Path, monkeypatch: pytest.MonkeyPatch, hook: Any
) -> None:
    assert hooks.is_dir()
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    assert hook() == ["from-setuptools", "torch>=2.11", "cmake>=3.26", "ninja"]


@pytest.mark.parametrize(("kernels", "more"), [("own", []), ("engine", ["jinja2>=3"])])
def test_programs_of_the_engine_need_jinja2(hooks: Path, kernels: str, more: list[str]) -> None:
    assert hooks.is_dir()
    settings = Settings.from_environ({"VLLM_KERNELS": kernels})
    target = device.Target("cuda", "a test")
    compiled = ["torch>=2.11", "cmake>=3.26", "ninja"]
    assert backend._compile_requirements(settings, target) == [*compiled, *more]
    assert backend._compile_requirements(settings, device.Target("cpu", "a test")) == compiled


@pytest.mark.parametrize("hook", WHEEL_HOOKS)
def test_what_is_there_is_used(
    hooks: Path,
    monkeypatch: pytest.MonkeyPatch,
    hook: Any,
    program: Program,
    torch: Torch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    program(tmp_path / "path" / "ninja", "1.13.0")
    program(tmp_path / "path" / "cmake", "cmake version 3.25.1")
    assert hook() == ["from-setuptools", "torch>=2.11", "cmake>=3.26"]
    program(hooks / "bin" / "cmake", "cmake version 3.31.2")
    with_headers(torch(hooks, "2.11.0+cpu"))
    assert hook() == ["from-setuptools"]


def test_precompiled_and_sdist_ask_for_nothing(
    hooks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hooks.is_dir()
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    assert backend.get_requires_for_build_sdist() == ["from-setuptools"]
    monkeypatch.setenv("VLLM_USE_PRECOMPILED", "1")
    assert backend.get_requires_for_build_wheel() == ["from-setuptools"]


@pytest.mark.parametrize("hook", ["get_requires_for_build_sdist", "build_sdist"])
def test_an_sdist_is_for_no_device(
    root: Path,
    bare: Path,
    monkeypatch: pytest.MonkeyPatch,
    nvcc: Program,
    tmp_path: Path,
    hook: str,
) -> None:
    """The device may lack kernels or conflict with torch, and the toolkit may be broken."""
    assert bare.is_dir()
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cuda")
    monkeypatch.setenv("CUDA_HOME", str(nvcc(tmp_path / "old", "9.0").parents[1]))
    told = []

    def setup(*_: Any) -> list[str]:
        # setuptools' hook runs setup.py with this command line to find the build requirements.
        told.append(
            distribution.arguments(
                root, Settings.from_environ(os.environ), ["setup.py", "egg_info"]
            )
        )
        return ["made"]

    monkeypatch.setattr(build_meta, hook, setup)
    getattr(backend, hook)(*([] if "requires" in hook else ["dist"]))
    (arguments,) = told
    assert arguments["ext_modules"] == []
    assert arguments["version"] == (root / "VERSION").read_text(encoding="utf-8").strip()
    with pytest.raises(ToolchainError):
        distribution.arguments(root, Settings.from_environ(os.environ), ["setup.py", "egg_info"])


def test_a_torch_that_is_too_old(bare: Path, torch: Torch, tmp_path: Path) -> None:
    package = torch(bare, "2.5.0+cpu")
    with pytest.raises(ToolchainError, match="headers were not found"):
        torch_files.find(tmp_path)
    with_headers(package, (2, 10))
    with pytest.raises(ToolchainError, match=r"too old: the installed torch in .* is 2\.10\.0"):
        torch_files.find(tmp_path)


@pytest.mark.parametrize(
    ("hook", "arguments"),
    [
        ("prepare_metadata_for_build_wheel", ("m",)),
        ("prepare_metadata_for_build_editable", ("m",)),
        ("build_wheel", ("w",)),
        ("build_editable", ("w",)),
        ("build_sdist", ("s",)),
    ],
)
def test_errors_are_their_own_words(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    hook: str,
    arguments: tuple[str, ...],
) -> None:
    def fail(*_: Any) -> str:
        raise BusyError("another process is writing", remedy="wait")

    monkeypatch.setattr(build_meta, hook, fail)
    with pytest.raises(SystemExit) as caught:
        getattr(backend, hook)(*arguments)
    assert caught.value.code == BusyError.exit_code
    assert caught.value.__cause__ is None
    assert capsys.readouterr().err == "\nerror: another process is writing\n  to do:    wait\n"
    monkeypatch.setattr(build_meta, hook, lambda *_: "made")
    assert getattr(backend, hook)(*arguments) == "made"


def test_a_wheel_is_put_together_in_a_folder_that_goes_away(
    monkeypatch: pytest.MonkeyPatch, root: Path, bare: Path
) -> None:
    assert bare.is_dir()
    seen = []

    def build(*_: Any) -> str:
        folder = distribution.arguments(root, Settings(target_device="empty"), ["setup.py"])[
            "options"
        ]["build"]["build_base"]
        seen.append(Path(folder))
        assert Path(folder).is_dir()
        return "wheel"

    monkeypatch.setattr(build_meta, "build_wheel", build)
    backend.build_wheel("w")
    backend.build_wheel("w")
    assert seen[0] != seen[1]
    assert not any(folder.exists() for folder in seen)
    assert (
        "build"
        not in distribution.arguments(root, Settings(target_device="empty"), ["setup.py"])[
            "options"
        ]
    )
    with distribution.staging():
        outer = distribution._staging
        with distribution.staging():
            assert distribution._staging != outer
        assert distribution._staging == outer


@pytest.mark.parametrize(("name", "modules"), [("cpu", ["vllm._C"]), ("empty", []), ("tpu", [])])
def test_arguments_of_setup(root: Path, bare: Path, name: str, modules: list[str]) -> None:
    assert bare.is_dir()
    settings = Settings(target_device=name)
    arguments = distribution.arguments(root, settings, ["setup.py", "bdist_wheel"])
    assert [module.name for module in arguments["ext_modules"]] == modules
    assert arguments["version"] == f"{distribution_version.base_version(root)}+{name}"
    assert arguments["install_requires"] == ["torch>=2.11"]
    metadata = arguments["cmdclass"].pop("egg_info")
    assert issubclass(metadata, egg_info)
    assert arguments["cmdclass"] == {
        "build_ext": cmake_ext.cmake_build_ext,
        "build_py": package_commands.versioned_build_py,
    }
    assert ("bdist_wheel" in arguments["options"]) == bool(modules)


def test_arguments_of_an_sdist_are_the_same_for_every_device(
    root: Path, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bare.is_dir()
    monkeypatch.setattr(device, "resolve", lambda _: pytest.fail("an sdist is for no device"))
    arguments = distribution.arguments(root, Settings(target_device="cuda"), ["setup.py", "sdist"])
    assert (arguments["version"], arguments["ext_modules"]) == (
        distribution_version.base_version(root),
        [],
    )
    assert arguments["options"] == {}


def test_precompiled_metadata_needs_no_toolkit(root: Path, bare: Path) -> None:
    assert bare.is_dir()
    arguments = distribution.arguments(
        root, Settings(target_device="cpu", use_precompiled=True), ["setup.py"]
    )
    assert arguments["cmdclass"]["build_ext"] is cmake_ext.precompiled_build_ext
    assert [module.name for module in arguments["ext_modules"]] == ["vllm._C"]


def test_a_device_that_contradicts_torch(root: Path, bare: Path, torch: Torch) -> None:
    torch(bare, "2.11.0+cpu")
    with pytest.raises(ConfigurationError, match="contradicts"):
        distribution.arguments(root, Settings(target_device="cuda"), ["setup.py"])


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> package_commands.versioned_build_py:
    """The command for a package that has one module and an outdated ``_version.py``."""
    tree = tmp_path / "tree"
    (tree / "vllm").mkdir(parents=True)
    (tree / "vllm" / "__init__.py").touch()
    monkeypatch.chdir(tree)
    monkeypatch.setattr(paths, "source_root", lambda: tree)
    command = package_commands.versioned_build_py(
        Distribution(
            {"name": "vllm", "version": "1.0+cpu", "packages": ["vllm"], "script_name": "setup.py"}
        )
    )
    command.build_lib = str(tmp_path / "lib")
    command.ensure_finalized()
    return command


def test_the_version_is_written_beside_the_modules(
    modules: package_commands.versioned_build_py, tmp_path: Path
) -> None:
    (tmp_path / "tree" / "vllm" / "_version.py").write_text("stale\n", encoding="utf-8")
    modules.run()
    assert '__version__ = "1.0+cpu"' in (tmp_path / "lib" / "vllm" / "_version.py").read_text(
        encoding="utf-8"
    )
    assert (tmp_path / "tree" / "vllm" / "_version.py").read_text(encoding="utf-8") == "stale\n"
    outputs = [
        Path(name).relative_to(tmp_path / "lib").as_posix()
        for name in modules.get_outputs(include_bytecode=False)
    ]
    assert sorted(outputs) == ["vllm/__init__.py", "vllm/_version.py"]


def test_an_editable_install_writes_it_into_the_tree(
    modules: package_commands.versioned_build_py, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modules, "editable_mode", True)
    modules.run()
    assert '__version__ = "1.0+cpu"' in (tmp_path / "tree" / "vllm" / "_version.py").read_text(
        encoding="utf-8"
    )
    assert str(tmp_path / "lib" / "vllm" / "_version.py") in modules.get_outputs(
        include_bytecode=False
    )


@pytest.mark.parametrize("outputs", [("vllm-kernels", "vllm-flashmla"), ()])
def test_metadata_names_the_kernel_digests(
    root: Path,
    modules: package_commands.versioned_build_py,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    outputs: tuple[str, ...],
) -> None:
    monkeypatch.setattr(paths, "source_root", lambda: root)
    command = package_commands.stamped_egg_info(outputs)(modules.distribution)
    command.egg_base = str(tmp_path)
    command.ensure_finalized()
    stale = tmp_path / "vllm.egg-info" / package_commands.KERNELS
    stale.parent.mkdir()
    stale.write_text("of an earlier build", encoding="utf-8")
    command.run()
    listed = (tmp_path / "vllm.egg-info" / "SOURCES.txt").read_text(encoding="utf-8")
    assert outputs or package_commands.KERNELS not in listed
    if outputs:
        document = json.loads(stale.read_text(encoding="utf-8"))
        assert document == {
            "schema": 1,
            "kernel_digests": {
                output: tree_digests.kernel_digest(root, output) for output in outputs
            },
        }
    else:
        assert not stale.exists()


@pytest.mark.parametrize(
    ("settings", "outputs"),
    [
        (Settings(target_device="cpu"), ("vllm-kernels",)),
        (Settings(target_device="cpu", use_precompiled=True), ("vllm-kernels",)),
        (
            Settings(
                target_device="cpu", precompiled_location="x.whl", precompiled_foreign="incomplete"
            ),
            (),
        ),
        (Settings(target_device="empty"), ()),
    ],
    ids=["compiled", "reused", "official", "none"],
)
def test_outputs_of_these_sources(
    root: Path, bare: Path, settings: Settings, outputs: tuple[str, ...]
) -> None:
    assert bare.is_dir()
    assert distribution.outputs(root, settings, device.resolve(settings)) == outputs
