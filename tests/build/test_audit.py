# SPDX-License-Identifier: Apache-2.0
"""Audits that fail: libraries of this environment's packages that violate each rule."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import zstandard

from vllm_build.checks import library_audit
from vllm_build.util.errors import PackageTestError, ToolchainError


@pytest.fixture
def full_api_library(tmp_path: Path) -> Path:
    """A library that uses CPython's full API, with a name for the limited one."""
    (source,) = (p for p in Path(zstandard.__file__).parent.glob("backend_c.*.so"))
    return Path(shutil.copy(source, tmp_path / "liar.abi3.so"))


def findings(library: Path, glibc: tuple[int, int]) -> dict[str, library_audit.Finding]:
    return {finding.check: finding for finding in library_audit.audit(library, glibc=glibc)}


def test_a_library_of_the_full_api_is_found_out(full_api_library: Path) -> None:
    found = findings(full_api_library, (2, 31))
    assert not found["abi3audit"].good
    with pytest.raises(PackageTestError, match="abi3audit"):
        library_audit.require(found.values())


def test_glibc_floor(full_api_library: Path) -> None:
    needed = library_audit.glibc_needed(full_api_library)
    assert (2, 2) <= needed <= (2, 31)
    assert findings(full_api_library, needed)["glibc"].good
    too_old = findings(full_api_library, (2, needed[1] - 1))["glibc"]
    assert not too_old.good
    assert f"needs glibc 2.{needed[1]}" in too_old.text


def test_compiler_comment(full_api_library: Path) -> None:
    assert "GCC" in library_audit.compiler_comment(full_api_library)


def test_audits_of_a_build_are_those_that_are_installed(
    full_api_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = library_audit.where_installed([full_api_library], abi3=True)
    assert {finding.check: finding.good for finding in found}["abi3audit"] is False
    assert "abi3audit" not in {
        finding.check for finding in library_audit.where_installed([full_api_library], abi3=False)
    }
    monkeypatch.setattr(library_audit.programs, "look_for", lambda _: None)
    assert library_audit.where_installed([full_api_library], abi3=True) == ()
    monkeypatch.setattr(library_audit.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ToolchainError, match="abi3audit is not installed next to"):
        library_audit.audit(full_api_library, glibc=(2, 31))


def test_nothing_found_is_fine() -> None:
    library_audit.require([library_audit.Finding("x.so", "glibc", good=True, text="")])
