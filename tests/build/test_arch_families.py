# SPDX-License-Identifier: Apache-2.0
"""The tables of chips and families agree with NVIDIA's assemblers; errors suggest a spelling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from vllm_build import cli
from vllm_build.architectures import cuda_archs, gpu_targets, rocm_archs
from vllm_build.util.errors import ConfigurationError, ToolchainError
from vllm_build.util.toml import loads

FACTS: dict[str, Any] = loads(
    (Path(__file__).parents[1] / "data" / "cuda_releases.toml").read_text(encoding="utf-8")
)
EVERY = sorted({name for names in FACTS["targets"].values() for name in names.split()})


def ours(name: str) -> str:
    """Converts ``100f`` to the spelling of architecture lists."""
    digits = name.rstrip("af")
    return f"{digits[:-1]}.{digits[-1]}{name[len(digits) :]}"


@pytest.mark.parametrize("release", FACTS["targets"])
def test_every_chip_of_every_release(release: str) -> None:
    listed = set(FACTS["targets"][release].split())
    for name in EVERY:
        why = gpu_targets.why_not_compiled("cuda", ours(name), Version(release))
        assert (why is None) == (name in listed), f"{name} of CUDA {release}: {why}"


@pytest.mark.parametrize("release", FACTS["families"])
def test_family_code_reaches_its_family_and_nothing_else(release: str) -> None:
    chips = [name for name in FACTS["targets"][release].split() if name.isdigit()]
    for family, members in FACTS["families"][release].items():
        (record,) = cuda_archs.parse(ours(family), "record")
        reached = {
            chip
            for chip in chips
            if cuda_archs.serving_entry((record,), cuda_archs.parse(ours(chip), "target")[0])
            is not None
        }
        assert reached == set(members.split()), f"{family} of CUDA {release}"


@pytest.mark.parametrize(
    ("record", "target", "served"),
    [
        ("10.0f", "10.1", None),
        ("10.0f", "11.0", None),
        ("10.0f", "12.0", None),
        ("10.1f", "11.0", "10.1f"),
        ("11.0f", "10.1", "11.0f"),
        ("11.0f", "12.0", None),
        ("10.3f", "10.0", None),
        ("12.1f", "12.0", None),
        ("10.0f;10.3f", "10.3", "10.3f"),
        ("10.0;10.0f", "10.1", "10.0"),
        ("13.0f", "13.1", None),
        ("13.0f", "13.0", "13.0f"),
    ],
)
def test_entries_that_serve(record: str, target: str, served: str | None) -> None:
    entry = cuda_archs.serving_entry(
        cuda_archs.parse(record, "record"), cuda_archs.parse(target, "target")[0]
    )
    assert (None if entry is None else str(entry)) == served


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("90", "write 9.0"),
        ("sm_90", "write 9.0"),
        ("sm_90a", "write 9.0a"),
        ("compute_120f", "write 12.0f"),
        ("90a-real", "write 9.0a"),
        ("80-virtual", "write 8.0+PTX"),
        ("8", "write 8.0"),
        ("9.0A", "write 9.0a"),
        ("8.0+ptx", "write 8.0+PTX"),
        ("8,0", "write 8.0"),
        ("ampere", "write Ampere"),
        ("hopper", "write Hopper"),
        ("Blackwel", "write Blackwell"),
        ("8.0,9.0", "separate entries with semicolons, not commas"),
        ("native", "name the architectures"),
        ("All", "unset the variable"),
        ("gpu", "correct TORCH_CUDA_ARCH_LIST"),
        ("100.0", "correct TORCH_CUDA_ARCH_LIST"),
    ],
)
def test_errors_suggest_the_spelling(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        gpu_targets.parse("cuda", text, "TORCH_CUDA_ARCH_LIST")
    assert str(caught.value.remedy).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("GFX942", "write gfx942"),
        ("90a", "write gfx90a"),
        ("MI300X", "write gfx942"),
        ("mi250", "write gfx90a"),
        ("gfx94", "write gfx942"),
        ("gfx90a,gfx942", "separate entries with semicolons"),
        ("native", "name the architectures"),
        ("all", "unset the variable"),
        ("gfx", "correct PYTORCH_ROCM_ARCH"),
    ],
)
def test_errors_suggest_the_spelling_for_amd(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        rocm_archs.parse(text, "PYTORCH_ROCM_ARCH")
    assert str(caught.value.remedy).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sm_90", "write 90 in"),
        ("8.0", "write 80 in"),
        ("native", "name the"),
        ("all", "unset the"),
    ],
)
def test_errors_suggest_cmake_s_spelling(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        gpu_targets.from_cmake(text, "CMAKE_CUDA_ARCHITECTURES")
    assert str(caught.value.remedy).startswith(said)


@pytest.mark.parametrize("command", ["version", "plan", "jobs"])
@pytest.mark.parametrize(
    ("device", "release", "floor"),
    [("cuda", "11.7", "CUDA >= 11.8"), ("rocm", "5.6", "ROCm >= 5.7")],
)
def test_questions_obey_the_floors(
    command: str, device: str, release: str, floor: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        cli.main([command, "--device", device, "--toolkit-version", release])
        == ToolchainError.exit_code
    )
    said = capsys.readouterr()
    assert not said.out
    assert floor in said.err


def test_the_floor_holds_for_a_device_that_the_environment_names(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bare.is_dir()
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cuda")
    assert cli.main(["version", "--toolkit-version", "11.7"]) == ToolchainError.exit_code
    assert "CUDA 11.7 is too old" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--kernel", "--targets"])
@pytest.mark.parametrize("text", ["8.1", "9.0f", "8.0a"])
def test_archs_knows_the_chips_that_builds_know(
    option: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = {"--kernel": "8.0", "--targets": "8.0"} | {option: text}
    assert (
        cli.main(["archs", *(word for pair in lists.items() for word in pair)])
        == ConfigurationError.exit_code
    )
    assert f"{option}: there is no GPU architecture {text}" in capsys.readouterr().err
