# SPDX-License-Identifier: Apache-2.0
"""What tests/kernels/emulate.py emulates. The emulation itself runs in tests/recipe."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import pytest

from vllm_build.kernels import kernels_table
from vllm_build.util import paths

ROOT = paths.source_root()
KERNELS = ROOT / "tests" / "kernels"


@pytest.fixture
def emulate(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(KERNELS))
    return importlib.import_module("emulate")


@pytest.mark.parametrize(
    ("architecture", "wave", "capability"),
    [
        ("gfx90a", 64, 90),
        ("gfx942", 64, 94),
        ("gfx950", 64, 95),
        ("gfx1030", 32, 103),
        ("gfx1100", 32, 110),
        ("gfx1201", 32, 120),
    ],
)
def test_architectures(emulate: Any, architecture: str, wave: int, capability: int) -> None:
    (chosen,) = emulate.choose("rocm", architecture)
    assert (chosen.wave, chosen.capability) == (wave, capability)
    assert chosen.name == f"cmake-emulation-{architecture}"


def test_rocm_has_both_sizes_of_waves(emulate: Any) -> None:
    assert [each.wave for each in emulate.choose("rocm", None)] == [64, 32]
    (cuda,) = emulate.choose("cuda", None)
    assert (cuda.wave, cuda.capability, cuda.name) == (32, 0, "cmake-emulation")


@pytest.mark.parametrize(
    ("device", "architecture"), [("cuda", "gfx942"), ("rocm", "9.0a"), ("rocm", "gfx9-generic")]
)
def test_other_architectures_are_refused(emulate: Any, device: str, architecture: str) -> None:
    with pytest.raises(
        SystemExit, match=f"^error: --device {device} --architecture .*\n  expected"
    ):
        emulate.choose(device, architecture)


def test_every_record_of_a_gpu_has_tests(emulate: Any) -> None:
    records = [
        kernel.name
        for kernel in kernels_table.load(ROOT).kernels
        if {"cuda", "rocm"} & set(kernel.devices) and not kernel.sets and not kernel.third_party
    ]
    assert [name for name in records if name not in {*emulate.LEFT_OUT, *emulate.TESTS}] == []
    files = [
        *(name for names in emulate.TESTS.values() for name in names),
        *(name for names in emulate.OF_EMULATION.values() for name in names),
        *emulate.OVERALL,
    ]
    assert [name for name in files if not (KERNELS / name).is_file()] == []


@pytest.mark.parametrize("words", [[], ["DEVICE=rocm"], ["DEVICE=rocm", "ARGS=--sanitize -k norm"]])
def test_make_passes_the_device_on(words: list[str]) -> None:
    said = subprocess.run(
        ["make", "-n", "-C", str(ROOT), "emulate", f"PYTHON={sys.executable}", *words],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    device = "rocm" if words else "cuda"
    more = words[1].partition("=")[2] if len(words) > 1 else ""
    line = next(line for line in said.splitlines() if "emulate.py" in line)
    assert line.replace("'", "").split("emulate.py", 1)[1].split() == [
        "--device",
        device,
        *more.split(),
    ]
