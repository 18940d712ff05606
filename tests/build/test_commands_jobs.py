# SPDX-License-Identifier: Apache-2.0
"""``vllm-build jobs`` and ``archs``."""

from __future__ import annotations

import json

import pytest
from command_answers import answer, forget_variables, refused, use_sample

from vllm_build import cli
from vllm_build.native import machine_limits
from vllm_build.native.machine_limits import GIB, Limit


@pytest.fixture(autouse=True)
def no_variables_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_variables(monkeypatch)


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch) -> None:
    use_sample(monkeypatch)


@pytest.mark.parametrize(
    ("kernel", "targets", "compiled", "unserved"),
    [
        ("8.0;9.0a", "9.0;10.0", ["9.0a"], ["10.0"]),
        ("8.0+PTX", "9.0 8.0", ["8.0+PTX"], []),
        ("12.0f", "12.1a+PTX", ["12.0f+PTX"], []),
        ("gfx90a;gfx942", "gfx942;gfx1100", ["gfx942"], ["gfx1100"]),
    ],
)
def test_archs(
    capsys: pytest.CaptureFixture[str],
    kernel: str,
    targets: str,
    compiled: list[str],
    unserved: list[str],
) -> None:
    assert answer(capsys, "archs", "--kernel", kernel, "--targets", targets) == {
        "archs": compiled,
        "unserved": unserved,
    }


@pytest.mark.parametrize(
    ("kernel", "targets", "said"),
    [
        ("8.0,9.0", "9.0", "--kernel"),
        ("", "9.0", "--kernel"),
        ("8.0", "", "--targets"),
        ("8.0", "+PTX", "--targets"),
        ("gfx90a", "9.0", "--targets"),
        ("8.0", "gfx90a", "--targets"),
    ],
)
def test_archs_malformed(
    capsys: pytest.CaptureFixture[str], kernel: str, targets: str, said: str
) -> None:
    assert said in refused(capsys, "archs", "--kernel", kernel, "--targets", targets)


@pytest.mark.parametrize(
    ("arguments", "environ", "expected"),
    [
        (["--device", "cpu"], {}, (16, None)),
        (["--device", "cpu"], {"MAX_JOBS": "3"}, (3, None)),
        (["--device", "empty"], {}, (16, None)),
        (["--device", "CUDA", "--toolkit-version", "12.9"], {}, (16, 1)),
        (["--device", "cuda", "--toolkit-version", "11.8"], {"NVCC_THREADS": "4"}, (4, 4)),
        (
            ["--device", "cuda", "--toolkit-version", "12.9"],
            {"NVCC_THREADS": "4", "MAX_JOBS": "2"},
            (1, 4),
        ),
        (["--device", "rocm", "--toolkit-version", "6.4"], {"NVCC_THREADS": "4"}, (16, None)),
        (["--device", "cpu"], {"MAX_JOBS": "", "NVCC_THREADS": ""}, (16, None)),
    ],
)
def test_jobs(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    environ: dict[str, str],
    expected: tuple[int, int | None],
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    document = answer(capsys, "jobs", *arguments, "--cpus", "16", "--memory-gib", "64.5")
    assert list(document) == ["jobs", "nvcc_threads", "heavy_jobs", "why"]
    assert (document["jobs"], document["nvcc_threads"]) == expected
    assert 1 <= document["heavy_jobs"] <= document["jobs"]
    assert "memory: given, 64.50 GiB" in document["why"]


@pytest.mark.usefixtures("sample")
def test_jobs_heed_the_heavy_units_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--cpus", "16", "--memory-gib", "16")
    cuda = answer(capsys, "jobs", "--device", "cuda", "--toolkit-version", "12.9", *given)
    assert (cuda["jobs"], cuda["heavy_jobs"]) == (4, 2)
    cpu = answer(capsys, "jobs", "--device", "cpu", *given)
    assert (cpu["jobs"], cpu["heavy_jobs"]) == (10, 2)


def test_jobs_ask_the_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_limits, "cpu_limits", lambda: [Limit(8, "affinity, 8")])
    monkeypatch.setattr(
        machine_limits,
        "memory_limits",
        lambda: [Limit(4 * GIB, "cgroup limit of 4.0 GiB, 4.0 GiB of it free")],
    )
    assert cli.main(["jobs", "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["jobs"] == 2
    assert "cgroup limit of 4.0 GiB" in said.err


@pytest.mark.parametrize("value", ["", "0", "-1", "abc", "1e9", "1.5"])
def test_jobs_malformed_cpus(capsys: pytest.CaptureFixture[str], value: str) -> None:
    assert "--cpus" in refused(capsys, "jobs", "--device", "cpu", f"--cpus={value}")


@pytest.mark.parametrize("value", ["", "0", "-1", "abc", "1e9", "0.0", "inf", "nan", "1,5"])
def test_jobs_malformed_memory(capsys: pytest.CaptureFixture[str], value: str) -> None:
    assert "--memory-gib" in refused(capsys, "jobs", "--device", "cpu", f"--memory-gib={value}")


@pytest.mark.parametrize("name", ["MAX_JOBS", "NVCC_THREADS"])
@pytest.mark.parametrize("value", ["0", "-1", "abc", "1e9"])
def test_jobs_malformed_variables(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert name in refused(capsys, "jobs", "--device", "cpu")


@pytest.mark.parametrize("command", ["jobs", "plan"])
@pytest.mark.parametrize(
    ("option", "value"),
    [("--device", "gpu"), ("--toolkit-version", "new"), ("--toolkit-version", "")],
)
def test_malformed_target(
    capsys: pytest.CaptureFixture[str], command: str, option: str, value: str
) -> None:
    assert option in refused(capsys, command, "--device=cuda", f"{option}={value}")
