# SPDX-License-Identifier: Apache-2.0
"""A build ignores a compiler cache that is found but does not work, and warns about it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vllm_build.conda import package_build
from vllm_build.native import cmake, compiler_cache
from vllm_build.settings.build_settings import Settings
from vllm_build.util.console import Console

if TYPE_CHECKING:
    from tests.build.conftest import Program


@pytest.fixture(autouse=True)
def fresh(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bare.is_dir()
    compiler_cache._probed.cache_clear()
    for name in ("CCACHE_DIR", "CCACHE_DISABLE", "CCACHE_READONLY"):
        monkeypatch.delenv(name, raising=False)


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def used(settings: Settings | None = None) -> set[str]:
    return {
        Path(launcher).name
        for launcher in cmake.launchers(settings or Settings(inherited=os.environ)).values()
    }


def test_an_sccache_that_cannot_start_gives_way_to_ccache(
    tmp_path: Path, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    program(
        tmp_path / "path" / "sccache",
        status=2,
        stderr="sccache: error: Server startup failed: no such bucket",
    )
    program(tmp_path / "path" / "ccache")
    assert used() == {"ccache"}
    said = capsys.readouterr().err
    assert "warning: sccache is not used" in said
    assert "no such bucket" in said
    assert "VLLM_DISABLE_SCCACHE=1" in said
    assert used() == {"ccache"}
    assert not capsys.readouterr().err, "the warning appears once in a build"


def test_an_sccache_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiler_cache, "TIMEOUT", 0.2)
    script(tmp_path / "path" / "sccache", "while :; do :; done")
    assert not used()
    assert "did not answer within" in capsys.readouterr().err


def test_a_ccache_that_crashes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script(tmp_path / "path" / "ccache", "kill -SEGV $$")
    assert not used()
    assert "VLLM_DISABLE_CCACHE=1" in capsys.readouterr().err


def test_a_ccache_of_another_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = script(tmp_path / "path" / "ccache", "")
    path.write_bytes(b"\x7fELF nothing")
    assert not used()
    assert "cannot be run" in capsys.readouterr().err


@pytest.mark.parametrize("new", [True, False])
def test_a_folder_that_cannot_be_written_to(
    tmp_path: Path,
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    new: bool,
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    folder = tmp_path / "file" / "cache"
    if new:  # this ccache prints its folder; an older one lacks the option, so the variable decides
        script(tmp_path / "path" / "ccache", f'[ "$1" != --get-config ] || echo {folder}')
    else:
        program(tmp_path / "path" / "ccache")
        monkeypatch.setenv("CCACHE_DIR", str(folder))
    assert not used()
    assert f"{folder} cannot be written to" in capsys.readouterr().err
    monkeypatch.setenv("CCACHE_READONLY", "1")
    compiler_cache._probed.cache_clear()
    assert used() == {"ccache"}


def test_what_the_user_names_is_not_probed(
    tmp_path: Path, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    program(tmp_path / "path" / "ccache", status=1)
    named = Settings(
        c_launcher="ccache", cxx_launcher="ccache", cuda_launcher="ccache", hip_launcher="ccache"
    )
    assert used(named) == {"ccache"}
    assert not capsys.readouterr().err


def test_a_disabled_one_is_not_probed(
    tmp_path: Path, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    program(tmp_path / "path" / "sccache", status=1)
    program(tmp_path / "path" / "ccache", status=1)
    assert not used(Settings(disable_sccache=True, disable_ccache=True))
    assert not capsys.readouterr().err


def test_packages_are_compiled_without_a_cache_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "cache"))
    assert package_build._ccache(Settings(), Console()) == str(tmp_path / "cache")
    assert not capsys.readouterr().err
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "file" / "cache"))
    assert package_build._ccache(Settings(), Console()) == ""
    said = capsys.readouterr().err
    assert "compiling without a compiler cache" in said
    assert "VLLM_DISABLE_CCACHE=1" in said
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("VLLM_DISABLE_CCACHE", "1")
    assert package_build._ccache(Settings.from_environ(os.environ), Console()) == ""
