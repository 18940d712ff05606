# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import doctor_facts
import pytest
from doctor_facts import named, problems
from packaging.version import Version

from vllm_build import cli
from vllm_build.conda import package_channel
from vllm_build.doctor import examination, machine_facts, package_facts
from vllm_build.doctor import fact as _fact
from vllm_build.doctor.fact import CONTRADICTION, MISSING, Fact
from vllm_build.native import machine_limits
from vllm_build.util.errors import BusyError, ConfigurationError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Callable

    Examine = Callable[..., list[Fact]]


@pytest.fixture
def examine(
    bare: Path,
    tmp_path: Path,
    root: Path,
    program: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Examine:
    del bare
    return doctor_facts.examiner(root, tmp_path, program, monkeypatch)


def test_all_is_well(examine: Examine) -> None:
    facts = examine()
    assert problems(facts) == {}
    assert examination.exit_code(facts) == 0
    whats = {fact.what for fact in facts}
    assert {
        "device",
        "torch",
        "toolkit for cuda",
        "C++ compiler",
        "cmake",
        "generator",
        "compiler cache",
        "jobs",
        "cache",
        "output",
    } <= whats
    assert named(facts, "device").found.startswith("cpu")
    assert "+cpu" in named(facts, "version").found
    assert "vllm._C" in named(facts, "kernels").found


def test_a_clean_environment_can_be_given(root: Path, bare: Path) -> None:
    del bare
    assert named(
        examination.examine(root, {"VLLM_TARGET_DEVICE": "empty"}), "device"
    ).found.startswith("empty")


def test_every_malformed_variable_is_told(examine: Examine) -> None:
    facts = examine(MAX_JOBS="0", VERBOSE="x")
    assert [fact.found for fact in facts if fact.what == "variable"] == [
        "MAX_JOBS='0' is not valid",
        "VERBOSE='x' is not valid",
    ]
    assert named(facts, "device").found.startswith("cpu"), "the other facts are reported, too"
    assert examination.exit_code(facts) == ConfigurationError.exit_code


# programs


@pytest.mark.parametrize(
    ("name", "what"),
    [("cc", "C compiler"), ("c++", "C++ compiler"), ("cmake", "cmake"), ("ninja", "generator")],
)
def test_program_is_missing(
    examine: Examine, tmp_path: Path, name: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vllm_build.native.cmake.sys.executable", str(tmp_path / "python"))
    (tmp_path / "tools" / name).unlink()
    assert problems(examine()) == {what: MISSING}
    facts = examine(VLLM_TARGET_DEVICE="empty")
    assert problems(facts) == {}
    assert "not needed for empty" in named(facts, what).found


@pytest.mark.parametrize("behaviour", [{"status": 1}, {"stdout": ""}])
def test_compiler_does_not_answer(
    examine: Examine, tmp_path: Path, program: Callable[..., Path], behaviour: dict[str, Any]
) -> None:
    program(tmp_path / "tools" / "c++", **behaviour)
    assert problems(examine()) == {"C++ compiler": MISSING}


def test_compiler_of_another_machine(examine: Examine, tmp_path: Path) -> None:
    (tmp_path / "tools" / "c++").write_bytes(b"\x7fELF nothing of this machine")
    assert problems(examine()) == {"C++ compiler": MISSING}


def test_chosen_compiler(examine: Examine, tmp_path: Path, program: Callable[..., Path]) -> None:
    program(tmp_path / "tools" / "mine", "mine 3")
    assert "mine 3" in named(examine(CXX="mine -m64"), "C++ compiler").found


@pytest.mark.parametrize("text", ["absent", "'open"])
def test_chosen_compiler_cannot_be_run(examine: Examine, text: str) -> None:
    facts = examine(CXX=text)
    assert problems(facts) == {"C++ compiler": CONTRADICTION}
    assert "CXX" in str(named(facts, "C++ compiler").remedy)


def test_compiler_caches(examine: Examine, tmp_path: Path, program: Callable[..., Path]) -> None:
    program(tmp_path / "tools" / "ccache")
    fact = named(examine(VLLM_DISABLE_CCACHE="1"), "compiler cache")
    assert "sccache: none" in fact.found
    assert "ccache, disabled by VLLM_DISABLE_CCACHE" in fact.found


def test_launcher_cannot_be_run(
    examine: Examine, tmp_path: Path, program: Callable[..., Path]
) -> None:
    program(tmp_path / "tools" / "distcc")
    facts = examine(
        CMAKE_C_COMPILER_LAUNCHER="distcc;--quick", CMAKE_HIP_COMPILER_LAUNCHER="absent"
    )
    assert problems(facts) == {"launcher": CONTRADICTION}
    assert "CMAKE_HIP_COMPILER_LAUNCHER" in named(facts, "launcher").found


# precompiled kernels


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"VLLM_PRECOMPILED_SHA256": "0" * 64}, "names none"),
        ({"VLLM_USE_PRECOMPILED": "1"}, "nowhere to search"),
        (
            {"VLLM_PRECOMPILED_WHEEL_LOCATION": "x.whl", "VLLM_TARGET_DEVICE": "empty"},
            "has no kernels",
        ),
        (
            {"VLLM_PRECOMPILED_WHEEL_LOCATION": "x.whl", "VLLM_PRECOMPILED_KEY": "public.pem"},
            "asks for a signature",
        ),
        ({"VLLM_PRECOMPILED_FOREIGN": "1"}, "is for an official wheel"),
    ],
)
def test_precompiled(examine: Examine, variables: dict[str, str], words: str) -> None:
    facts = examine(**variables)
    assert problems(facts) == {"precompiled": CONTRADICTION}
    assert words in named(facts, "precompiled").found


@pytest.mark.parametrize(
    "variables",
    [
        {"VLLM_PRECOMPILED_SHA256": "0" * 64, "VLLM_PRECOMPILED_WHEEL_LOCATION": "x.whl"},
        {"VLLM_USE_PRECOMPILED": "1", "VLLM_PRECOMPILED_STORES": "x"},
        {
            "VLLM_USE_PRECOMPILED": "1",
            "VLLM_PRECOMPILED_STORES": "x",
            "VLLM_PRECOMPILED_KEY": "public.pem",
        },
        {"VLLM_PRECOMPILED_FOREIGN": "incomplete", "VLLM_PRECOMPILED_WHEEL_LOCATION": "x.whl"},
    ],
)
def test_precompiled_makes_sense(examine: Examine, variables: dict[str, str]) -> None:
    assert problems(examine(**variables)) == {}


# the machine


def test_too_many_jobs_for_memory(examine: Examine) -> None:
    facts = examine(MAX_JOBS="64")
    assert problems(facts) == {"memory": CONTRADICTION}
    assert "MAX_JOBS=64" in named(facts, "memory").found


@pytest.mark.parametrize("count", ["1", "4", "5"])
def test_jobs_that_fit_memory(examine: Examine, count: str) -> None:
    assert problems(examine(MAX_JOBS=count)) == {}


def test_memory_is_not_known(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_limits, "memory_limits", list)
    assert problems(examine(MAX_JOBS="64")) == {}


def test_disk_is_small(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_facts, "NEEDED_BYTES", 1 << 80)
    facts = examine()
    assert problems(facts) == {"cache": MISSING, "build folders": MISSING, "output": MISSING}
    assert "VLLM_BUILD_CACHE" in str(named(facts, "cache").remedy)


def test_folder_cannot_be_written(
    examine: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: real(path, mode) and Path(path) != tmp_path / "locked"
    )
    (tmp_path / "locked").mkdir()
    facts = examine(VLLM_BUILD_ROOT=str(tmp_path / "locked" / "build"))
    assert problems(facts) == {"build folders": MISSING}
    assert "VLLM_BUILD_ROOT" in str(named(facts, "build folders").remedy)


# packages


def test_channel_is_unknown(examine: Examine) -> None:
    assert problems(examine(CHANNEL="nosuch")) == {"channel": CONTRADICTION}


def test_local_channel_without_apt(examine: Examine, tmp_path: Path) -> None:
    (tmp_path / "tools" / "apt-get").unlink()
    assert named(examine(), "channel").found == package_channel.CONDA_FORGE
    assert problems(examine(CHANNEL="local")) == {"channel": MISSING}


@pytest.mark.parametrize(
    ("libc", "found"),
    [
        (("glibc", "2.35"), "2.35, but the compilers of the local channel need 2.36 or newer"),
        (("", ""), "another C library, but the local channel needs glibc 2.36"),
    ],
)
def test_glibc_is_too_old(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, libc: tuple[str, str], found: str
) -> None:
    monkeypatch.setattr(package_facts.platform, "libc_ver", lambda: libc)
    facts = examine(CHANNEL="local")
    assert problems(facts) == {"glibc": MISSING}
    assert named(facts, "glibc").found == found
    assert "CHANNEL=conda-forge" in str(named(facts, "glibc").remedy)
    facts = examine(CHANNEL="conda-forge")
    assert (problems(facts), [f for f in facts if f.what == "glibc"]) == ({}, [])


@pytest.mark.parametrize("release", ["2.36", "2.41", "2.100"])
def test_glibc_is_new_enough(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    monkeypatch.setattr(package_facts.platform, "libc_ver", lambda: ("glibc", release))
    facts = examine(CHANNEL="local")
    assert (problems(facts), named(facts, "glibc").found) == ({}, release)


def test_the_glibc_is_what_the_channel_asks_for(root: Path) -> None:
    asked = {
        Version(release)
        for recipe in (root / "toolchain" / "recipes").glob("*/recipe.yaml")
        for release in re.findall(r"__glibc.*?>=([\d.]+)", recipe.read_text(encoding="utf-8"))
    }
    assert max(asked) == package_facts.GLIBC


def test_toolchain_channel_is_empty(examine: Examine, tmp_path: Path) -> None:
    examine()
    next((tmp_path / "cache").rglob("*.conda")).unlink()
    assert problems(examine()) == {"toolchain channel": MISSING}
    facts = examine(CHANNEL="conda-forge")
    assert problems(facts) == {}
    assert "toolchain channel" not in {fact.what for fact in facts}


# facts and the command


def test_errors_become_facts() -> None:
    assert _fact.of_error("x", ConfigurationError("a", remedy="b")) == Fact(
        "x", "a", "b", CONTRADICTION
    )
    assert _fact.of_error("x", BusyError("a", expected="c")) == Fact(
        "x", "a", "expected: c", MISSING
    )
    assert _fact.of_error("x", ToolchainError("a")).remedy


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([], 0),
        ([None], 0),
        ([MISSING], 4),
        ([CONTRADICTION], 2),
        ([MISSING, CONTRADICTION, None], 2),
    ],
)
def test_exit_code(kinds: list[str | None], expected: int) -> None:
    assert examination.exit_code([Fact("x", "y", None, kind) for kind in kinds]) == expected


@pytest.mark.usefixtures("examine")
def test_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    assert "C++ compiler" in capsys.readouterr().err
    monkeypatch.setenv("NVCC_THREADS", "none")
    assert cli.main(["doctor", "--json"]) == ConfigurationError.exit_code
    rows = json.loads(capsys.readouterr().out)
    (row,) = [row for row in rows if row["problem"]]
    assert row["found"] == "NVCC_THREADS='none' is not valid"
