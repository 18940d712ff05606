# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import platform
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from vllm._kernels import build_info, platforms
from vllm._kernels.platforms import CpuArchEnum, PlatformEnum, UnspecifiedPlatform, host
from vllm._kernels.platforms.cpu import CpuPlatform
from vllm._kernels.platforms.rocm import RocmPlatform

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUESTIONS = ["is_cuda", "is_rocm", "is_tpu", "is_xpu", "is_cpu", "is_unspecified", "is_cuda_alike"]


@pytest.fixture(autouse=True)
def _no_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_TARGET_DEVICE", raising=False)
    monkeypatch.setattr(build_info, "DIRECTORY", tmp_path / "_build_info")


def yes(found: platforms.Platform) -> set[str]:
    return {question for question in QUESTIONS if getattr(found, question)()}


def test_nothing_installed() -> None:
    found = platforms.detect()
    assert isinstance(found, UnspecifiedPlatform)
    assert yes(found) == {"is_unspecified"}
    assert found.supported_dtypes == []
    for question in (found.get_device_name, found.get_device_total_memory):
        with pytest.raises(RuntimeError, match="kernels are not installed"):
            question()


def test_the_kernels_decide(tmp_path: Path, write_record: Callable[..., Path]) -> None:
    write_record(
        tmp_path, component="vllm-flash-attn", device="cuda"
    )  # a component next to the kernels
    write_record(tmp_path, device="cpu")
    found = platforms.detect()
    assert isinstance(found, CpuPlatform)
    assert yes(found) == {"is_cpu"}
    assert (found.device_name, found.device_type, found.dispatch_key) == ("cpu", "cpu", "CPU")


def test_the_variable_decides_before_them(
    tmp_path: Path, write_record: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(tmp_path, device="cuda")
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "CPU")
    assert platforms.detect().is_cpu()
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "empty")
    assert platforms.detect().is_unspecified()


def test_a_device_without_a_platform(
    tmp_path: Path, write_record: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(tmp_path, device="xpu", version="3.2.1")
    with pytest.raises(
        RuntimeError,
        match=r"no platform for 'xpu' \(the installed vllm-kernels 3.2.1 are built for it\); it "
        r"has cpu, cuda, rocm, empty",
    ):
        platforms.detect()
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "tpu")
    with pytest.raises(RuntimeError, match=r"no platform for 'tpu' \(VLLM_TARGET_DEVICE=tpu\)"):
        platforms.detect()


def test_bad_input_is_reported(
    tmp_path: Path, write_record: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(tmp_path, schema=7)
    with pytest.raises(ValueError, match="schema is 7"):
        platforms.detect()
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "toaster")
    with pytest.raises(ValueError, match="VLLM_TARGET_DEVICE='toaster'"):
        platforms.detect()


def test_current_platform_is_decided_once(monkeypatch: pytest.MonkeyPatch) -> None:
    platforms._current.cache_clear()
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    first = platforms.current_platform
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "empty")
    try:
        assert platforms.current_platform is first
    finally:
        platforms._current.cache_clear()


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = platforms.no_such_thing


def test_every_family_has_its_question() -> None:
    assert {f"is_{member.name.lower()}" for member in PlatformEnum} | {"is_cuda_alike"} == set(
        QUESTIONS
    )
    for member in PlatformEnum:
        found = type("One", (UnspecifiedPlatform,), {"_enum": member})()
        alike = {"is_cuda_alike"} if member in (PlatformEnum.CUDA, PlatformEnum.ROCM) else set()
        assert yes(found) == {f"is_{member.name.lower()}"} | alike


def test_cpu_answers() -> None:
    cpu = CpuPlatform()
    assert cpu.get_device_name() == host.cpu_model() != ""
    assert cpu.get_device_total_memory(0) > 2**20
    assert cpu.get_cpu_features() == host.cpu_flags()
    for question in (cpu.get_device_name, cpu.get_device_total_memory):
        with pytest.raises(ValueError, match="device_id=1"):
            question(1)


def test_cpu_dtypes() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    assert set(CpuPlatform().supported_dtypes) == {torch.float32, torch.bfloat16, torch.float16}
    assert torch.empty(1, device=CpuPlatform.device_type).device.type == "cpu"


def test_cuda_answers(
    tmp_path: Path, write_record: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    write_record(tmp_path, device="cuda")
    found = platforms.detect()
    assert yes(found) == {"is_cuda", "is_cuda_alike"}
    assert (found.device_name, found.device_type, found.dispatch_key) == ("cuda", "cuda", "CUDA")
    assert set(found.supported_dtypes) == {torch.float32, torch.bfloat16, torch.float16}
    if torch.cuda.is_available():
        assert found.get_device_name(0)
        assert found.get_device_total_memory(0) > 2**30
        with pytest.raises(ValueError, match="device_id=99"):
            found.get_device_name(99)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for question in (found.get_device_name, found.get_device_total_memory):
        with pytest.raises(RuntimeError, match="sees no GPU"):
            question()


@pytest.mark.parametrize(
    ("processor", "fnuz"),
    [("gfx90a:sramecc+:xnack-", False), ("gfx942", True), ("gfx950", False), ("gfx1201", False)],
)
def test_rocm_answers(
    tmp_path: Path,
    write_record: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    processor: str,
    fnuz: bool,  # noqa: FBT001 - a parameter
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    write_record(tmp_path, device="rocm")
    found = platforms.detect()
    assert isinstance(found, RocmPlatform)
    assert yes(found) == {"is_rocm", "is_cuda_alike"}
    # torch calls AMD GPUs "cuda".
    assert (found.device_name, found.device_type, found.dispatch_key) == ("rocm", "cuda", "CUDA")
    assert set(found.supported_dtypes) == {torch.float32, torch.bfloat16, torch.float16}
    if torch.version.hip is None:
        with pytest.raises(RuntimeError, match="is built without ROCm"):
            found.get_device_name()
    monkeypatch.setattr(torch.version, "hip", "7.2.4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match=r"built for ROCm, HIP 7\.2\.4\) sees no GPU"):
        found.fp8_dtype()
    # A GPU that this machine does not have, as torch describes it.
    properties = SimpleNamespace(name="AMD Instinct", total_memory=2**37, gcnArchName=processor)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    assert found.get_processor() == processor.partition(":")[0]
    assert (found.get_device_name(), found.get_device_total_memory()) == ("AMD Instinct", 2**37)
    assert found.fp8_dtype() is (torch.float8_e4m3fnuz if fnuz else torch.float8_e4m3fn)
    with pytest.raises(ValueError, match="device_id=1: torch sees 1 GPU, numbered from 0"):
        found.get_device_name(1)


def test_fp8_of_other_platforms() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    assert (CpuPlatform.fp8_dtype(), CpuPlatform.is_fp8_fnuz()) == (torch.float8_e4m3fn, False)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("x86_64", CpuArchEnum.X86),
        ("AMD64", CpuArchEnum.X86),
        ("aarch64", CpuArchEnum.ARM),
        ("arm64", CpuArchEnum.ARM),
        ("ppc64le", CpuArchEnum.POWERPC),
        ("s390x", CpuArchEnum.S390X),
        ("riscv64", CpuArchEnum.RISCV),
        ("", CpuArchEnum.OTHER),
    ],
)
def test_architecture(monkeypatch: pytest.MonkeyPatch, machine: str, expected: Any) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert CpuPlatform.get_cpu_architecture() is expected
