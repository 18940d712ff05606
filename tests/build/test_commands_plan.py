# SPDX-License-Identifier: Apache-2.0
"""``vllm-build plan``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from command_answers import answer, forget_variables, refused, use_sample
from packaging.version import Version

from vllm_build import cli
from vllm_build.commands.explain import plan_text
from vllm_build.conda import variants
from vllm_build.kernels import kernel_choice, kernels_table, plan_resolver
from vllm_build.settings.build_settings import Settings
from vllm_build.util import environ, paths
from vllm_build.util.errors import ConfigurationError, NothingToDoError, ToolchainError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_variables_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_variables(monkeypatch)


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch) -> None:
    use_sample(monkeypatch)


@pytest.mark.usefixtures("sample")
def test_plan_of_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    document = answer(
        capsys, "plan", "--device", "cuda", "--toolkit-version", "12.2", "--arch-list", "8.0;9.0a"
    )
    assert (document["device"], document["toolkit_version"], document["targets"]) == (
        "cuda",
        "12.2",
        ["8.0", "9.0a"],
    )
    assert [e["name"].rpartition(".")[2] for e in document["extensions"]] == [
        "_C",
        "_moe_C",
        "cumem_allocator",
        "_vllm_fa2_C",
    ]
    rows = {row["kernel"]: row for row in document["kernels"]}
    assert rows["gemm-sm90"] == {
        "extension": "vllm._C",
        "kernel": "gemm-sm90",
        "sources": ["csrc/gemm/sm90.cu"],
        "archs": ["9.0a"],
        "memory": "ordinary",
        "state": "built",
        "reason": "for 9.0a",
        "unserved": [{"target": "8.0", "reason": "none of 9.0a serves it"}],
    }
    assert {name: row["state"] for name, row in rows.items() if row["state"] != "built"} == {
        "norm-host": "device",
        "gemm-blackwell": "arch",
        "attention-rocm": "device",
        "fa3": "toolkit",
        "flashmla": "toolkit",
    }


@pytest.mark.usefixtures("sample")
def test_plan_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plan", "--device", "cuda", "--toolkit-version", "12.2", "--arch-list", "8.0;9.0a"]
    assert cli.main(command) == 0
    said = capsys.readouterr()
    assert not said.out
    lines = said.err.splitlines()
    assert lines[0] == "kernels for cuda, CUDA 12.2, architectures 8.0 9.0a"
    group = lines.index("built: vllm._C (vllm-kernels), 2 kernels, 3 units, and 1 of its own")
    assert lines[group + 1].split() == ["kernel", "units", "memory", "architectures"]
    (row,) = [line for line in lines[group:] if line.startswith("    gemm-sm90 ")]
    assert row.split() == ["gemm-sm90", "1", "ordinary", "9.0a"]
    assert "    not for 8.0: none of 9.0a serves it (gemm-sm90)" in lines
    reason = lines.index(
        "    toolkit: vllm.vllm_flash_attn._vllm_fa3_C needs CUDA >= 12.3, this is 12.2 (1 kernel, "
        "1 unit)"
    )
    assert lines[reason + 1] == "        vllm.vllm_flash_attn._vllm_fa3_C: fa3"
    assert "csrc/gemm/sm90.cu" not in said.err
    assert cli.main([*command, "--verbose"]) == 0
    verbose = capsys.readouterr().err.splitlines()
    assert verbose[verbose.index("    sources of gemm-sm90:") + 1] == "        csrc/gemm/sm90.cu"


@pytest.mark.usefixtures("sample")
def test_kernels_for_other_devices_are_one_line_a_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["plan", "--device", "cuda", "--toolkit-version", "12.2"]) == 0
    said = capsys.readouterr().err
    assert [line for line in said.splitlines() if line.startswith("    device:")] == [
        "    device: written for cpu, xpu, not for cuda (1 kernel, 1 unit)",
        "    device: written for rocm, not for cuda (1 kernel, 1 unit)",
    ]
    assert "attention-rocm" not in said
    assert cli.main(["plan", "--device", "cuda", "--toolkit-version", "12.2", "--verbose"]) == 0
    assert "        vllm._rocm_C: attention-rocm" in capsys.readouterr().err.splitlines()


TARGETS = [
    *(("cpu", None), ("tpu", None), ("xpu", None), ("empty", None), ("rocm", "7.1")),
    *(("cuda", release) for release in ("11.8", "12.4", "12.9", "13.0")),
]


@pytest.mark.parametrize("verbose", [False, True], ids=["short", "verbose"])
@pytest.mark.parametrize("chosen", ["", "check", "dev", "full"])
@pytest.mark.parametrize(("device", "release"), TARGETS)
def test_plans_fit_100_columns_and_name_every_kernel(
    device: str,
    release: str | None,
    chosen: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    verbose: bool,
) -> None:
    monkeypatch.setenv("VLLM_FA_SET", chosen)
    arguments = [
        "plan",
        "--device",
        device,
        *(["--toolkit-version", release] if release else []),
        *(["--verbose"] if verbose else []),
    ]
    status = cli.main(arguments)
    assert (status == 0) == (device in {"cpu", "cuda", "rocm"})
    shown, _, _ = capsys.readouterr().err.partition("Traceback")
    text, _, _ = shown.partition("\nerror: ")
    assert max(map(len, text.splitlines())) <= 100
    table = kernels_table.load(paths.source_root())
    words = set(re.split(r"[\s,()]+", text))
    expected = {k.name for k in table.kernels if verbose or device in k.devices}
    assert expected <= words
    if verbose:
        assert {
            source for k in table.kernels if device in k.devices for source in k.sources
        } <= words
    left = len([k for k in table.kernels if device not in k.devices])
    assert (
        sum(map(int, re.findall(r"^    device: .*\((\d+) kernels?, ", text, re.MULTILINE))) == left
    )
    *_, summary = text.splitlines()
    ((built, out),) = re.findall(
        r"^(\d+) kernels? in \d+ librar(?:y|ies): \d+ units? .* (\d+) kernels? left out$", summary
    )
    assert int(built) + int(out) == len(table.kernels)


@pytest.mark.parametrize("variant", ["cpu", "cuda12", "cuda124", "cuda13"])
def test_plans_of_the_variants_fit_80_columns(
    variant: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = variants.load(root, variant).values
    monkeypatch.setenv("VLLM_FA_SET", values.get("flash_attention_set", ""))
    device, release, archs = (
        values["accelerator"],
        values.get("cuda_compiler_version"),
        values.get("cuda_arch_list"),
    )
    found = plan_resolver.survey(
        kernels_table.load(root),
        device,
        toolkit_version=Version(release) if release and device == "cuda" else None,
        arch_list=archs,
        choice=kernel_choice.Choice.of(Settings.from_environ(environ.snapshot())),
    )
    lines = plan_text.lines(found, 80, verbose=False)
    assert max(map(len, lines)) <= 80
    rows = [
        line
        for line in lines
        if line.startswith("    ")
        and line.split()[0] in {k.name for e in found.extensions for k in e.kernels}
    ]
    assert len(rows) == sum(len(extension.kernels) for extension in found.extensions), (
        "one line per kernel that is built"
    )


@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize(
    ("device", "environ", "targets"),
    [
        ("cuda", {"TORCH_CUDA_ARCH_LIST": "9.0a"}, ["9.0a"]),
        ("cuda", {"CMAKE_CUDA_ARCHITECTURES": "80-real"}, ["8.0"]),
        ("rocm", {"PYTORCH_ROCM_ARCH": "gfx942"}, ["gfx942"]),
        ("cpu", {"TORCH_CUDA_ARCH_LIST": "9.0a"}, []),
    ],
)
def test_plan_of_the_environment(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    environ: dict[str, str],
    targets: list[str],
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert (
        answer(capsys, "plan", "--device", device, "--toolkit-version", "12.9")["targets"]
        == targets
    )


@pytest.mark.usefixtures("sample")
def test_the_option_wins_over_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0a")
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    assert answer(
        capsys, "plan", "--device", "cuda", "--toolkit-version", "12.9", "--arch-list", "8.0"
    )["targets"] == ["8.0"]


@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize("text", ["", "+PTX", "8.0,9.0", "8.1", "hopper", "gfx90a"])
def test_plan_malformed_list(capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert "--arch-list" in refused(
        capsys, "plan", "--device", "cuda", "--toolkit-version", "12.9", f"--arch-list={text}"
    )


@pytest.mark.usefixtures("sample")
def test_plan_without_a_kernel_left(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cli.main(["plan", "--device", "cuda", "--toolkit-version", "12.9", "--arch-list", "5.0"])
        == ConfigurationError.exit_code
    )
    said = capsys.readouterr().err
    # The table comes first, because it explains why kernels are left out.
    assert said.index("kernels for cuda, CUDA 12.9") < said.index(
        "no kernel of 'cuda' can be built for 5.0 with CUDA 12.9"
    )


@pytest.mark.usefixtures("sample")
def test_plan_with_an_old_toolkit(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cli.main(["plan", "--device", "rocm", "--toolkit-version", "5.6"])
        == ToolchainError.exit_code
    )
    assert "ROCm 5.6 is too old" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["tpu", "empty"])
def test_plan_of_devices_that_compile_nothing(
    capsys: pytest.CaptureFixture[str], device: str
) -> None:
    assert cli.main(["plan", "--device", device]) == NothingToDoError.exit_code
    assert f"device '{device}' compiles nothing" in capsys.readouterr().err


@pytest.mark.usefixtures("bare", "sample")
def test_plan_of_what_is_found(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, nvcc: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvcc(tmp_path / "cuda", "12.9")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    document = answer(capsys, "plan")
    assert (document["device"], document["toolkit_version"]) == ("cuda", "12.9")
    assert answer(capsys, "plan", "--toolkit-version", "12.2")["toolkit_version"] == "12.2"
    assert answer(capsys, "plan", "--device", "cuda")["toolkit_version"] == "12.9"
    assert answer(capsys, "jobs")["nvcc_threads"] == 1


@pytest.mark.usefixtures("bare", "sample")
def test_plan_of_an_unknown_toolkit(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--device", "cuda"]) == 0
    assert "kernels for cuda, CUDA of unknown version, architectures 7.5" in capsys.readouterr().err
