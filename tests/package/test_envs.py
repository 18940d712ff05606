# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm._kernels import envs

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

DEVICES = ["cuda", "rocm", "cpu", "tpu", "xpu", "empty"]


@pytest.mark.parametrize("value", [None, "", "  "])
def test_unset_and_empty_are_the_same(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("VLLM_TARGET_DEVICE", raising=False)
    if value is not None:
        monkeypatch.setenv("VLLM_TARGET_DEVICE", value)
    assert envs.VLLM_TARGET_DEVICE is None


@pytest.mark.parametrize("device", DEVICES)
def test_devices_in_any_case(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    for spelling in (device, device.upper(), f" {device.title()} "):
        monkeypatch.setenv("VLLM_TARGET_DEVICE", spelling)
        assert device == envs.VLLM_TARGET_DEVICE


def test_read_again_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    first = envs.VLLM_TARGET_DEVICE
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "xpu")
    assert (first, envs.VLLM_TARGET_DEVICE) == ("cpu", "xpu")


def test_malformed_names_variable_value_and_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "gpu")
    with pytest.raises(
        ValueError,
        match=r"^VLLM_TARGET_DEVICE='gpu': expected one of cuda, rocm, cpu, tpu, xpu, empty, in "
        r"any case$",
    ):
        _ = envs.VLLM_TARGET_DEVICE


@pytest.mark.parametrize(
    ("value", "size"), [("", 256), ("1", 1), (" 64 ", 64), ("010", 10), ("0X1f", 31)]
)
def test_the_size_of_chunks(monkeypatch: pytest.MonkeyPatch, value: str, size: int) -> None:
    monkeypatch.setenv("VLLM_SLEEP_MEM_CHUNK_SIZE", value)
    assert size == envs.VLLM_SLEEP_MEM_CHUNK_SIZE


@pytest.mark.parametrize("value", ["0", "-1", "4 MB", "4.5", "1_0", "0x", "1048577", "\u0664"])
def test_sizes_of_chunks_that_are_none(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("VLLM_SLEEP_MEM_CHUNK_SIZE", value)
    with pytest.raises(ValueError, match="expected a whole number of MiB from 1 to 1048576"):
        _ = envs.VLLM_SLEEP_MEM_CHUNK_SIZE


@given(st.text())
def test_one_of_accepts_its_words_and_nothing_else(text: str) -> None:
    parse = envs._one_of("on", "off")
    if text.lower() in ("on", "off"):
        assert parse(text) == text.lower()
    else:
        with pytest.raises(ValueError, match="one of on, off"):
            parse(text)


def test_cpu_isa(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("VLLM_CPU_ISA", "AVX2")
    assert envs.VLLM_CPU_ISA == "avx2"
    monkeypatch.setenv("VLLM_CPU_ISA", "avx512")
    with pytest.raises(
        ValueError,
        match=r"^VLLM_CPU_ISA='avx512': expected one of sse2, avx2, avx3, avx3_zen4, amx, in any "
        r"case$",
    ):
        _ = envs.VLLM_CPU_ISA
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    with pytest.raises(ValueError, match="VLLM_CPU_ISA='avx512': expected it to be unset on vax"):
        _ = envs.VLLM_CPU_ISA


def test_cpu_isas_are_those_of_the_library(
    copy_with_library: Path,
    python: Callable[..., subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = "from vllm._kernels import loader; print(loader.namespace('_C').cpu_isa())"
    monkeypatch.setenv("VLLM_CPU_ISA", "no such thing")
    message = python(copy_with_library, code).stderr
    known = message.split("expected one of ")[1].splitlines()[0].split(", ")
    assert tuple(reversed(known)) == envs.CPU_ISAS[platform.machine()]
    monkeypatch.setenv("VLLM_CPU_ISA", known[-1])
    assert python(copy_with_library, code).stdout == known[-1] + "\n"


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="VLLM_NO_SUCH"):
        _ = envs.VLLM_NO_SUCH


def test_listed_and_documented() -> None:
    assert set(envs.VARIABLES) <= set(dir(envs))
    assert all(
        name.startswith("VLLM_") and variable.meaning for name, variable in envs.VARIABLES.items()
    )
