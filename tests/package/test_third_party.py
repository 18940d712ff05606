# SPDX-License-Identifier: Apache-2.0
"""Third-party code in the binaries is locked, and its license texts are included."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from packaging.licenses import canonicalize_license_expression

if TYPE_CHECKING:
    from pathlib import Path

toml = pytest.importorskip(
    "vllm_build.util.toml",
    reason="the build library is not on the path: an installed package is under test",
)

KEYS = {
    "name",
    "version",
    "license",
    "license_files",
    "outputs",
    "filename",
    "size",
    "sha256",
    "tree_sha256",
    "get",
}
WAYS = {
    "apt-source": {"type", "suite", "package", "revision"},
    "pypi-sdist": {"type", "package", "version"},
}


@pytest.fixture
def lock(root: Path) -> dict[str, Any]:
    document: dict[str, Any] = toml.loads(
        (root / "third_party" / "lock.toml").read_text(encoding="utf-8")
    )
    return document


def test_entries_are_complete(lock: dict[str, Any]) -> None:
    assert set(lock) == {"schema", "source"}
    assert lock["schema"] == 1
    for entry in lock["source"]:
        assert set(entry) - {"include", "on_request"} == KEYS, entry.get("name")
        assert entry.get("on_request", True) is True
        assert canonicalize_license_expression(entry["license"]) == entry["license"]
        assert re.fullmatch(r"[0-9a-f]{64}", entry["sha256"])
        assert re.fullmatch(r"[0-9a-f]{64}", entry["tree_sha256"])
        assert entry["version"] in entry["filename"]
        assert entry["size"] > 0
        assert set(entry["get"]) == WAYS[entry["get"]["type"]]
    names = [entry["name"] for entry in lock["source"]]
    assert names == sorted(set(names))


def test_the_engines_modules_and_kernels_are_of_one_archive(lock: dict[str, Any]) -> None:
    modules, kernels = (
        next(entry for entry in lock["source"] if entry["name"] == name)
        for name in ("vllm", "engine-kernels")
    )
    for key in ("version", "filename", "size", "sha256", "get"):
        assert modules[key] == kernels[key], key


def test_no_address_is_in_the_tree(root: Path) -> None:
    assert "://" not in (root / "third_party" / "lock.toml").read_text(encoding="utf-8")


def test_license_texts_are_there_and_listed(root: Path, lock: dict[str, Any]) -> None:
    licenses = root / "third_party" / "licenses"
    needed = {name for entry in lock["source"] for name in entry["license_files"]}
    present = {path.relative_to(licenses).as_posix() for path in licenses.rglob("LICENSE*")}
    assert needed <= present
    readme = (licenses / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name.partition('/')[0]}/`" in readme for name in present)


def test_the_toolchain_builds_the_locked_highway(root: Path, lock: dict[str, Any]) -> None:
    locked = toml.loads((root / "toolchain" / "lock.toml").read_text(encoding="utf-8"))["file"]
    (highway,) = [entry for entry in lock["source"] if entry["name"] == "highway"]
    (archive,) = [entry for entry in locked if entry["filename"] == highway["filename"]]
    assert (archive["sha256"], archive["size"], archive["version"]) == (
        highway["sha256"],
        highway["size"],
        highway["get"]["revision"],
    )
