# SPDX-License-Identifier: Apache-2.0
"""Build contract, section 2: one test for each statement about devices."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version

from vllm_build.settings.build_settings import Settings
from vllm_build.settings.choices import DEVICES
from vllm_build.target import device, torch_files
from vllm_build.target.device import Target
from vllm_build.target.toolkits.toolkit_search import Toolkit
from vllm_build.target.torch_flavour import TorchFlavour
from vllm_build.util.errors import ConfigurationError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("bare")

FLAVOURS = ("cuda", "rocm", "xpu", "cpu")


def flavour(name: str, *, temporary: bool = False) -> TorchFlavour:
    return TorchFlavour(
        name, "2.11.0", Version("13.0") if name == "cuda" else None, Path("site/torch"), temporary
    )


def resolve(
    asked: str | None = None,
    *,
    system: str = "linux",
    torches: tuple[TorchFlavour, ...] = (),
    **variables: Any,
) -> Target:
    return device.resolve(
        Settings(target_device=asked, **variables), system=system, torches=torches
    )


# `VLLM_TARGET_DEVICE` is `cuda`, `rocm`, `cpu`, `tpu`, `xpu` or `empty`, in any case. Any other
# value is a configuration error that lists these names.


@pytest.mark.parametrize("spelled", [str.lower, str.upper, str.title])
@pytest.mark.parametrize("name", DEVICES)
def test_asked_device_in_any_case(name: str, spelled: Callable[[str], str]) -> None:
    settings = Settings.from_environ({"VLLM_TARGET_DEVICE": spelled(name)})
    assert device.resolve(settings, system="linux", torches=()).name == name


@pytest.mark.parametrize("value", ["gpu", "cuda,cpu", "0", "nvidia"])
def test_unknown_device_lists_the_known_ones(value: str) -> None:
    with pytest.raises(ConfigurationError, match="VLLM_TARGET_DEVICE") as caught:
        Settings.from_environ({"VLLM_TARGET_DEVICE": value})
    assert value in caught.value.message
    assert all(name in str(caught.value.expected) for name in DEVICES)


# If it is unset, the flavour of the installed torch decides (read from files, without an import),


@pytest.mark.parametrize("name", FLAVOURS)
def test_unset_takes_the_flavour_of_torch(name: str) -> None:
    target = resolve(torches=(flavour(name),))
    assert target.name == name
    assert "torch 2.11.0" in target.reason


def test_torch_comes_before_toolkits(tmp_path: Path, nvcc: Callable[..., Path]) -> None:
    nvcc(tmp_path / "cuda")
    assert (
        resolve(torches=(flavour("cpu"),), search_path=str(tmp_path / "cuda" / "bin")).name == "cpu"
    )


def test_torch_is_not_imported(
    bare: Path, torch: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch(bare, "2.11.0+rocm7.1", hip="7.1.2", rocm="7.1.0")
    monkeypatch.syspath_prepend(str(bare))
    target = device.resolve(Settings(), system="linux")
    assert (target.name, target.release) == ("rocm", Version("7.1"))
    assert "torch" not in sys.modules


# otherwise the toolkit that is found: nvcc, hipcc or icpx,


def test_without_torch_the_toolkit_decides(
    tmp_path: Path, nvcc: Callable[..., Path], hipcc: Callable[..., Path], icpx: Callable[..., Path]
) -> None:
    folder = str(tmp_path / "tools" / "bin")
    icpx(tmp_path / "tools")
    assert resolve(search_path=folder).name == "xpu"
    hipcc(tmp_path / "tools")
    assert resolve(search_path=folder).name == "rocm"
    nvcc(tmp_path / "tools")
    target = resolve(search_path=folder)
    assert target.name == "cuda"
    assert target.release == Version("12.9")
    assert "CUDA 12.9" in target.reason
    assert "nvcc on PATH" in target.reason


# otherwise `cpu`. macOS is always `cpu`, and any other system `empty`.


def test_with_nothing_it_is_cpu() -> None:
    assert resolve().name == "cpu"


@pytest.mark.parametrize("asked", [None, "cpu", "cuda", "rocm", "xpu"])
def test_macos_is_cpu(asked: str | None) -> None:
    target = resolve(asked, system="darwin", torches=(flavour("cpu"),))
    assert target.name == "cpu"
    assert (str(asked) in target.reason) is (asked is not None)


@pytest.mark.parametrize("asked", ["tpu", "empty"])
def test_macos_compiles_nothing_when_nothing_is_to_be_compiled(asked: str) -> None:
    assert resolve(asked, system="darwin").name == asked


@pytest.mark.parametrize("asked", [None, "cpu", "cuda"])
@pytest.mark.parametrize("system", ["win32", "freebsd14", "aix"])
def test_other_systems_are_empty(system: str, asked: str | None) -> None:
    target = resolve(asked, system=system)
    assert target.name == "empty"
    assert system in target.reason


# A device that conflicts with the installed torch is an error that names both.


@pytest.mark.parametrize("built_for", FLAVOURS)
@pytest.mark.parametrize("asked", DEVICES)
def test_device_and_torch(asked: str, built_for: str) -> None:
    if asked in (built_for, "cpu", "tpu", "empty"):  # every torch supports the CPU
        assert resolve(asked, torches=(flavour(built_for),)).name == asked
        return
    with pytest.raises(
        ConfigurationError, match=rf"device {asked} .* built for {built_for}\b"
    ) as caught:
        resolve(asked, torches=(flavour(built_for),))
    assert built_for in str(caught.value.remedy)


def test_every_torch_in_sight_has_to_fit() -> None:
    with pytest.raises(ConfigurationError, match="built for cpu") as caught:
        resolve(torches=(flavour("cpu", temporary=True), flavour("cuda")))
    assert "--no-build-isolation" in str(caught.value.remedy)


# A torch that pip installed only for an isolated build does not select the device.


@pytest.mark.parametrize("built_for", FLAVOURS)
def test_torch_of_an_isolated_build_decides_nothing(built_for: str) -> None:
    assert resolve(torches=(flavour(built_for, temporary=True),)).name == "cpu"


@pytest.mark.parametrize(
    ("built_for", "expected"), [("cuda", "cuda"), ("cpu", "cpu"), ("rocm", "cpu"), ("xpu", "cpu")]
)
def test_torch_of_an_isolated_build_rules_devices_out(
    built_for: str, expected: str, tmp_path: Path, nvcc: Callable[..., Path]
) -> None:
    nvcc(tmp_path / "cuda")
    assert (
        resolve(
            torches=(flavour(built_for, temporary=True),),
            search_path=str(tmp_path / "cuda" / "bin"),
        ).name
        == expected
    )


def test_installed_torch_counts_beside_that_of_the_build() -> None:
    target = resolve(torches=(flavour("cuda", temporary=True), flavour("cuda")))
    assert target.name == "cuda"
    assert target.torch is not None
    assert not target.torch.temporary


# `tpu` and `empty` compile nothing and need no compiler, CMake or torch.


@pytest.mark.parametrize("asked", ["tpu", "empty"])
def test_pure_devices_look_at_nothing(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("looked")

    monkeypatch.setattr(torch_files, "installed", refuse)
    monkeypatch.setattr(device.toolkit_finder, "find", refuse)
    assert device.resolve(Settings(target_device=asked), system="linux") == Target(
        asked, "VLLM_TARGET_DEVICE"
    )


# Toolkit floors: CUDA 11.8, ROCm 5.7.


@pytest.mark.parametrize("release", ["9.2", "11.7"])
def test_cuda_floor(release: str, tmp_path: Path, nvcc: Callable[..., Path]) -> None:
    nvcc(tmp_path, release)
    with pytest.raises(ToolchainError, match=rf"CUDA {release} .* too old") as caught:
        resolve("cuda", cuda_home=tmp_path)
    assert "11.8" in str(caught.value.expected)


@pytest.mark.parametrize("version", ["5.6.1", "4.5.0"])
def test_rocm_floor(version: str, tmp_path: Path, hipcc: Callable[..., Path]) -> None:
    hipcc(tmp_path, version)
    with pytest.raises(ToolchainError, match=rf"ROCm {version} .* too old") as caught:
        resolve("rocm", rocm_home=tmp_path)
    assert "5.7" in str(caught.value.expected)


@pytest.mark.parametrize("release", ["11.8", "12.0", "12.10", "13.0"])
def test_cuda_from_the_floor_on(release: str, tmp_path: Path, nvcc: Callable[..., Path]) -> None:
    nvcc(tmp_path, release)
    assert resolve("cuda", cuda_home=tmp_path).release == Version(release)


# The release of a target, for metadata, which needs no toolkit.


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (
            Target(
                "cuda", "", Toolkit("cuda", Version("12.9"), Path(), Path(), ""), flavour("cuda")
            ),
            Version("12.9"),
        ),
        (Target("cuda", "", None, flavour("cuda")), Version("13.0")),
        (Target("cuda", "", None, None), None),
        (Target("cpu", "", None, flavour("cuda")), None),
    ],
)
def test_release(target: Target, expected: Version | None) -> None:
    assert target.release == expected


def test_wrapper_gives_the_name() -> None:
    assert device.target_device(Settings(target_device="tpu")) == "tpu"


@pytest.mark.parametrize("name", ["cuda", "rocm", "xpu"])
def test_a_libtorch_without_python_contradicts_nothing(name: str) -> None:
    """The recipe compiles against it for every device, in an environment without a torch."""
    bare = TorchFlavour("cpu", "2.11.0", None, Path("host"), bare=True)
    assert resolve(name, torches=(bare,)).name == name
    assert resolve(torches=(bare,)).name == "cpu"
