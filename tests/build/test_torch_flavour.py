# SPDX-License-Identifier: Apache-2.0
"""The flavour of torch, read from files like those of its wheels and conda packages."""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from vllm_build.target import torch_files, torch_flavour

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize(
    ("version", "attributes", "device", "release"),
    [
        ("2.11.0+cpu", {}, "cpu", None),
        ("2.11.0", {}, "cpu", None),  # conda-forge's
        ("2.11.0+cu130", {"cuda": "13.0"}, "cuda", "13.0"),
        ("2.11.0", {"cuda": "12.9"}, "cuda", "12.9"),
        ("2.12.0a0+gitabcdef", {"cuda": "12.10"}, "cuda", "12.10"),
        ("2.11.0+rocm6.4", {"hip": "6.4.43484-123956094"}, "rocm", "6.4"),
        ("2.11.0+rocm7.1", {"hip": "7.1.25424-4179531dcd", "rocm": "7.1.0"}, "rocm", "7.1"),
        ("2.11.0+xpu", {"xpu": "20250302"}, "xpu", None),
    ],
)
def test_attributes_of_its_version(
    tmp_path: Path,
    torch: Callable[..., Path],
    version: str,
    attributes: dict[str, str],
    device: str,
    release: str | None,
) -> None:
    package = torch(tmp_path, version, **attributes)
    found = torch_flavour.in_folder(tmp_path)
    assert found == torch_flavour.TorchFlavour(
        device, version, Version(release) if release else None, package
    )
    assert version in str(found)
    assert device in str(found)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("2.11.0+cpu", ("cpu", None)),
        ("2.11.0+cpu.cxx11.abi", ("cpu", None)),
        ("2.11.0+xpu", ("xpu", None)),
        ("2.11.0+cu118", ("cuda", Version("11.8"))),
        ("2.11.0+cu130", ("cuda", Version("13.0"))),
        ("2.11.0+cu1210", ("cuda", Version("12.10"))),
        ("2.11.0+rocm6.4", ("rocm", Version("6.4"))),
        ("2.11.0+rocm6.4.1", ("rocm", Version("6.4"))),
        ("2.11.0+rocm", ("rocm", None)),
        ("2.11.0", None),
        ("2.11.0+gitabcdef", None),
        ("2.11.0+cpuish", None),
        ("2.11.0+cu", None),
        ("", None),
    ],
)
def test_local_part(version: str, expected: tuple[str, Version | None] | None) -> None:
    assert torch_flavour.from_local(version) == expected


@given(st.integers(10, 99), st.integers(0, 30), st.sampled_from(["", ".with.more"]))
def test_every_cuda_release_in_a_local_part(major: int, minor: int, more: str) -> None:
    assert torch_flavour.from_local(f"2.11.0+cu{major}{minor}{more}") == (
        "cuda",
        Version(f"{major}.{minor}"),
    )


@given(st.text())
def test_any_local_part_is_read_or_not(text: str) -> None:
    found = torch_flavour.from_local(text)
    assert found is None or found[0] in ("cuda", "rocm", "xpu", "cpu")


def metadata_only(site: Path, version: str, *requires: str) -> None:
    info = site / f"torch-{version}.dist-info"
    info.mkdir(parents=True)
    lines = [
        "Metadata-Version: 2.1",
        "Name: torch",
        f"Version: {version}",
        *(f"Requires-Dist: {line}" for line in requires),
    ]
    (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("version", "requires", "device"),
    [
        ("2.11.0+cu130", (), "cuda"),
        ("2.11.0+cpu", ("nvidia-cublas",), "cpu"),
        ("2.11.0", ('nvidia-cudnn-cu13==9.15 ; platform_system == "Linux"', "sympy"), "cuda"),
        ("2.11.0", ("sympy", "cuda-bindings<14"), "cuda"),
        ("2.11.0", ("pytorch-triton-rocm==3.5",), "rocm"),
        ("2.11.0", ("intel-sycl-rt==2025.2",), "xpu"),
        ("2.11.0", ("sympy",), "cpu"),
    ],
)
def test_metadata_alone(
    tmp_path: Path, version: str, requires: tuple[str, ...], device: str
) -> None:
    metadata_only(tmp_path, version, *requires)
    found = torch_flavour.in_folder(tmp_path)
    assert found is not None
    assert (found.device, found.version, found.path) == (device, version, tmp_path)


@pytest.mark.parametrize("text", ["this is no Python (", "cuda, hip = 1, 2\n", "x: int\n", ""])
def test_version_file_that_says_nothing(
    tmp_path: Path, torch: Callable[..., Path], text: str
) -> None:
    package = torch(tmp_path, "2.11.0", metadata="2.11.0+cu130")
    (package / "version.py").write_text(text, encoding="utf-8")
    found = torch_flavour.in_folder(tmp_path)
    assert found is not None
    assert (found.device, found.version) == ("cuda", "2.11.0+cu130")


def test_version_file_that_is_no_text(tmp_path: Path, torch: Callable[..., Path]) -> None:
    package = torch(tmp_path, "2.11.0+xpu")
    (package / "version.py").write_bytes(b"\xff\xfe\x00")
    found = torch_flavour.in_folder(tmp_path)
    assert found is not None
    assert found.device == "xpu"


@pytest.mark.parametrize(
    ("library", "device"),
    [
        ("libtorch_cuda.so", "cuda"),
        ("libc10_hip.so", "rocm"),
        ("libtorch_xpu.so", "xpu"),
        ("libtorch_cpu.so", "cpu"),
        ("other.so", "cpu"),
    ],
)
def test_libraries_of_a_torch_without_metadata(tmp_path: Path, library: str, device: str) -> None:
    for name in ("__init__.py", f"lib/{library}"):
        path = tmp_path / "torch" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("", encoding="utf-8")
    found = torch_flavour.in_folder(tmp_path)
    assert found is not None
    assert (found.device, found.version) == (device, "")
    assert "of unknown version" in str(found)


def test_no_torch(tmp_path: Path) -> None:
    assert torch_flavour.in_folder(tmp_path) is None
    (tmp_path / "torch").mkdir()  # left behind by an uninstall
    assert torch_flavour.in_folder(tmp_path) is None
    assert torch_flavour.installed([str(tmp_path), ""], []) == ()


@pytest.mark.parametrize(
    "folder",
    [
        "pip-build-env-k3x_/overlay/lib/python3.11/site-packages",
        "build-env-9a/lib/python3.11/site-packages",
        "builds-v0/.tmpA/lib",
    ],
)
def test_environment_of_a_build(tmp_path: Path, torch: Callable[..., Path], folder: str) -> None:
    torch(tmp_path / folder, "2.11.0+cpu")
    torch(tmp_path / "venv", "2.11.0+cu130", cuda="13.0")
    found = torch_flavour.installed([str(tmp_path / folder), str(tmp_path / "venv")])
    assert [(flavour.device, flavour.temporary) for flavour in found] == [
        ("cpu", True),
        ("cuda", False),
    ]


# libtorch without Python


def libtorch(prefix: Path, *libraries: str, record: Any = None) -> Path:
    (prefix / "lib").mkdir(parents=True)
    (prefix / "conda-meta").mkdir()
    for name in libraries:
        (prefix / "lib" / name).write_text("", encoding="utf-8")
    if record is not None:
        (prefix / "conda-meta" / "libtorch-2.11.0-x.json").write_text(
            json.dumps(record), encoding="utf-8"
        )
    return prefix


@pytest.mark.parametrize(
    ("libraries", "record", "device", "release", "version"),
    [
        (
            ("libtorch_cpu.so",),
            {"version": "2.11.0", "build": "cpu_generic_h0"},
            "cpu",
            None,
            "2.11.0",
        ),
        (
            ("libtorch_cpu.so", "libtorch_cuda.so"),
            {"version": "2.11.0", "build": "cuda129_mkl_h0"},
            "cuda",
            "12.9",
            "2.11.0",
        ),
        (
            ("libtorch_cpu.so", "libtorch_cuda.so"),
            {"version": "2.11.0", "build": "h0_0"},
            "cuda",
            None,
            "2.11.0",
        ),
        (
            ("libtorch_cpu.so", "libtorch_cuda.so"),
            {"version": "2.11.0", "build": "cpu_pypi_h0_0"},
            "cpu",
            None,
            "2.11.0",
        ),
        (("libtorch_cpu.so",), None, "cpu", None, ""),
        (("libtorch_cpu.so",), ["no record"], "cpu", None, ""),
        (("libtorch_cpu.so",), {"version": "2.11.0"}, "cpu", None, "2.11.0"),
        (
            ("libtorch_cpu.so", "libtorch_hip.so"),
            {"version": "2.11.0", "build": "rocm"},
            "rocm",
            None,
            "2.11.0",
        ),
    ],
)
def test_libtorch_in_a_prefix(
    tmp_path: Path,
    libraries: tuple[str, ...],
    record: Any,
    device: str,
    release: str | None,
    version: str,
) -> None:
    found = torch_flavour.in_prefix(libtorch(tmp_path / "env", *libraries, record=record))
    assert found is not None
    assert (found.device, found.toolkit_version, found.version) == (
        device,
        Version(release) if release else None,
        version,
    )


def test_prefix_without_libtorch(tmp_path: Path) -> None:
    assert torch_flavour.in_prefix(tmp_path) is None
    assert torch_flavour.installed([], [tmp_path]) == ()


def test_python_part_comes_before_libtorch(
    tmp_path: Path, torch: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = libtorch(tmp_path / "env", "libtorch_cpu.so", "libtorch_cuda.so")
    torch(tmp_path / "site", "2.11.0+cpu")
    assert [
        flavour.device for flavour in torch_flavour.installed([str(tmp_path / "site")], [prefix])
    ] == ["cpu"]
    assert [flavour.device for flavour in torch_flavour.installed([], [prefix])] == ["cuda"]
    monkeypatch.setattr(sys, "prefix", str(prefix))
    assert [flavour.device for flavour in torch_flavour.installed([])] == ["cuda"]


# The import path of this interpreter


def test_what_would_be_imported_is_first(
    tmp_path: Path, torch: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch(tmp_path / "later", "2.12.0+xpu", xpu="1")
    torch(tmp_path / "first", "2.11.0+rocm6.4", hip="6.4")
    monkeypatch.syspath_prepend(str(tmp_path / "later"))
    monkeypatch.syspath_prepend(str(tmp_path / "first"))
    found = torch_files.installed()
    assert [flavour.device for flavour in found[:2]] == ["rocm", "xpu"]
    assert "torch" not in sys.modules


def test_import_hooks_count(
    tmp_path: Path, torch: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import finder, not the path, leads to an editable torch."""
    package = torch(tmp_path, "2.11.0+cu130", cuda="13.0")

    class Finder:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
            del path, target
            return (
                ModuleSpec(name, None, origin=str(package / "__init__.py"))
                if name == "torch"
                else None
            )

    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    assert torch_files.installed()[0].path == package


def test_torch_that_is_imported_already(
    tmp_path: Path, torch: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch(tmp_path, "2.11.0+xpu", xpu="1")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "torch", object())
    assert torch_files.installed()[0].device == "xpu"
