# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vllm_build.project import distribution_version
from vllm_build.settings.build_settings import Settings
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "VERSION").write_text("1.2.3\n", encoding="utf-8")
    (tmp_path / "vllm").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("base", "settings", "expected"),
    [
        ("1.2.3", Settings(), "1.2.3+cpu"),
        ("1.2.3+local", Settings(), "1.2.3+local.cpu"),
        ("1.2.3", Settings(skip_version_suffix=True), "1.2.3"),
        ("1.2.3", Settings(version_override="9.9"), "9.9"),
        ("1.2.3", Settings(version_override="9.9", skip_version_suffix=True), "9.9"),
    ],
)
def test_suffix(tree: Path, base: str, settings: Settings, expected: str) -> None:
    (tree / "VERSION").write_text(base, encoding="utf-8")
    assert distribution_version.full_version(tree, settings, "cpu") == expected


def test_malformed_base_names_the_file(tree: Path) -> None:
    (tree / "VERSION").write_text("one", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="VERSION"):
        distribution_version.base_version(tree)


def test_missing_base_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        distribution_version.base_version(tmp_path)


def test_malformed_override_names_the_variable(tree: Path) -> None:
    with pytest.raises(ConfigurationError, match="VLLM_VERSION_OVERRIDE"):
        distribution_version.full_version(tree, Settings(version_override="x y"), "cpu")


def test_version_file_is_written_once(tree: Path) -> None:
    distribution_version.write_version_file(tree, "1.2.3+cpu")
    path = tree / "vllm" / "_version.py"
    first = path.stat()
    distribution_version.write_version_file(tree, "1.2.3+cpu")
    assert path.stat().st_mtime_ns == first.st_mtime_ns
    assert path.stat().st_ino == first.st_ino
    distribution_version.write_version_file(tree, "1.2.4")
    assert '__version__ = "1.2.4"' in path.read_text(encoding="utf-8")
