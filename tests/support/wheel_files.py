# SPDX-License-Identifier: Apache-2.0
"""Reads a wheel that a build of the tree wrote."""

from __future__ import annotations

import json
import zipfile
from email import message_from_bytes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def only_wheel(folder: Path) -> Path:
    """The only wheel in a folder."""
    (wheel,) = folder.glob("*.whl")
    return wheel


def names(wheel: Path) -> list[str]:
    """Names of the files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def member(wheel: Path, name: str) -> bytes:
    """Content of one file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)


def metadata(wheel: Path, file: str = "METADATA") -> dict[str, list[str]]:
    """Header -> values of a file of the metadata."""
    (name,) = (n for n in names(wheel) if n.endswith(f".dist-info/{file}"))
    message = message_from_bytes(member(wheel, name))
    return {key: message.get_all(key, []) for key in set(message)}


def assert_is_the_cpu_wheel(wheel: Path, version: str, suffix: str = "+cpu") -> None:
    """Check everything about the wheel for CPUs that its files and metadata show."""
    assert wheel.name == f"vllm-{version}{suffix}-cp310-abi3-linux_x86_64.whl"
    inside = names(wheel)
    assert {
        "vllm/_C.abi3.so",
        "vllm/_build_info/vllm-kernels.json",
        "vllm/_version.py",
        "vllm/py.typed",
    } <= set(inside)
    assert not [
        name
        for name in inside
        if name.endswith((".cc", ".h", ".toml"))
        or name.startswith(("scripts", "vllm_build", "tests"))
    ]
    assert sum("/licenses/" in name for name in inside) >= 4
    assert f'__version__ = "{version}{suffix}"'.encode() in member(wheel, "vllm/_version.py")
    info = metadata(wheel)
    assert info["Version"] == [f"{version}{suffix}"]
    assert info["Requires-Dist"] == ["torch>=2.11"]
    assert metadata(wheel, "WHEEL")["Root-Is-Purelib"] == ["false"]
    record = json.loads(member(wheel, "vllm/_build_info/vllm-kernels.json"))
    (digests,) = (name for name in inside if name.endswith(".dist-info/kernels.json"))
    assert json.loads(member(wheel, digests)) == {
        "schema": 1,
        "kernel_digests": {"vllm-kernels": record["kernel_digest"]},
    }
    assert (record["version"], record["device"], record["python_abi"]) == (
        f"{version}{suffix}",
        "cpu",
        "abi3",
    )
    # Where it was built has no place in what is handed on.
    assert b"/env/lib" not in member(wheel, "vllm/_C.abi3.so")
