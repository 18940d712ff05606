# SPDX-License-Identifier: Apache-2.0
"""CUDA packages for one architecture, built by the users' command, and checked without a GPU.

``make test`` compiles fewer kernels: ``tests/build/pip/test_pip_cuda.py``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpu_engine
import pytest
from full_suite import full_only
from package_runs import environ
from trees import copy_tree, misses

from vllm_build.conda import package_channel, package_checks, package_job, package_request, variants
from vllm_build.conda.environments import conda_environment
from vllm_build.kernels import op_table
from vllm_build.packing import channel_index
from vllm_build.settings.build_settings import Settings
from vllm_build.toolchain import channel_build
from vllm_build.util import paths
from vllm_build.util.console import Console

pytestmark = [pytest.mark.slow, full_only]
ROOT = paths.source_root()
ARCHITECTURE = "9.0a"


@dataclass(frozen=True)
class Built:
    """The packages of ``vllm-build package cuda13``, and the clean prefix in which it ran them."""

    kernels: str
    request: package_request.Request
    result: dict[str, Any]
    log: str

    @property
    def components(self) -> list[str]:
        """Our packages with libraries."""
        engine = ["vllm-engine-kernels"] if self.kernels == "engine" else []
        return [*engine, "vllm-flash-attn", "vllm-flashmla", "vllm-kernels"]

    @property
    def records(self) -> list[dict[str, Any]]:
        """What the packages say of themselves."""
        paths = self.request.prefix.glob("lib/python*/site-packages/vllm/_build_info/*.json")
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(paths)]

    @property
    def extensions(self) -> list[dict[str, Any]]:
        return [extension for record in self.records for extension in record["extensions"]]


def chosen(kernels: str) -> dict[str, str]:
    """The smallest sets with every library; the full ones take hours."""
    return {
        "TORCH_CUDA_ARCH_LIST": ARCHITECTURE,
        "VLLM_FA_SET": "check",
        "VLLM_KERNELS": kernels,
        "VLLM_KERNEL_SET": "check",
    }


def build(kernels: str, tree: Path, output: Path) -> Built:
    env = environ(tree) | chosen(kernels)
    command = [
        sys.executable,
        "-m",
        "vllm_build",
        "package",
        "cuda13",
        "--json",
        "--output",
        str(output),
    ]
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return Built(
        kernels,
        package_request.Request(
            tree,
            variants.load(tree, "cuda13"),
            package_channel.LOCAL,
            output,
            Settings.from_environ({**os.environ, **chosen(kernels)}),
        ),
        json.loads(done.stdout),
        done.stderr,
    )


@pytest.fixture(scope="module", params=["own", "engine"])
def built(request: pytest.FixtureRequest) -> Built:
    """The packages with our kernels, and with those of the engine."""
    return build(request.param, ROOT, ROOT / "output" / f"one-architecture-{request.param}")


def test_packages_install_beside_a_torch_for_the_cpu_and_import(built: Built) -> None:
    names = sorted(Path(entry["path"]).name for entry in built.result["packages"])
    assert re.fullmatch(r"vllm-[\d.]+-py_s\w+\.conda", names[0])
    for name, component in zip(names[1:], built.components, strict=True):
        assert re.fullmatch(rf"{component}-[\d.]+-cuda130_abi3_k\w+\.conda", name)
    files = sorted(extension["file"] for extension in built.extensions)
    attention = [f"vllm_flash_attn/_vllm_fa{version}_C" for version in (2, 3)]
    engine = ["_C_stable_libtorch", "_flashmla_C", "_moe_C_stable_libtorch"]
    kernels = engine if built.kernels == "engine" else ["_flashmla_C", "_moe_C"]
    assert files == [
        f"vllm/{name}.abi3.so" for name in ("_C", *kernels, "cumem_allocator", *attention)
    ]
    assert re.search(
        r"operators are registered for cuda; none was run, because torch \S+ sees", built.log
    )


def test_one_binary_for_every_interpreter(built: Built) -> None:
    package_checks.prepare(built.request, Console())
    for interpreter in package_checks.INTERPRETERS:
        said = "\n".join(package_checks.compute(built.request, interpreter, Console()))
        assert f"Python {interpreter.name.removesuffix('t')}." in said
        assert "refused" in said


def test_the_engine_reports_its_kernels_and_refuses_to_serve(built: Built, tmp_path: Path) -> None:
    gpu_engine.check_report(built.request.prefix, tmp_path, "cuda", tuple(built.components))
    gpu_engine.check_refusal(built.request.prefix, tmp_path, "cuda")
    # The environment's own run says so as well.
    assert re.search(r"vllm [\d.]+ for cuda refuses to start here: .* sees no GPU", built.log)


def test_the_engine_without_flash_attention(built: Built, tmp_path: Path) -> None:
    """Packages for compute capability 7.5 alone have no FlashAttention; the engine imports."""
    prefix = tmp_path / "env"
    shutil.copytree(built.request.prefix, prefix, symlinks=True)
    for path in prefix.glob("lib/python*/site-packages/vllm/vllm_flash_attn/*.so"):
        path.unlink()
    for path in prefix.glob("lib/python*/site-packages/vllm/_build_info/vllm-flash-attn.json"):
        path.unlink()
    script = (
        "import vllm.entrypoints.llm; from vllm.vllm_flash_attn import flash_attn_interface as f; "
        "print(f.FA2_AVAILABLE, f.FA2_UNAVAILABLE_REASON)"
    )
    done = gpu_engine.run(prefix, tmp_path, "python", "-c", script)
    assert done.status == 0, done.err[-3000:]
    assert done.out.splitlines()[-1].startswith(
        "False the package vllm-flash-attn is not installed"
    )


def test_packages_with_the_cuda_runtime_carry_its_license(built: Built) -> None:
    records = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in built.request.prefix.glob("conda-meta/vllm-*.json")
    ]
    linked = [record for record in records if "LicenseRef-NVIDIA" in record["license"]]
    assert "vllm-kernels" in {record["name"] for record in linked}
    for record in linked:
        texts = [
            path.read_text(encoding="utf-8")
            for path in Path(record["extracted_package_dir"], "info", "licenses").rglob("*")
            if path.is_file()
        ]
        assert any(
            "NVIDIA Software License Agreement" in text or "End User License Agreement" in text
            for text in texts
        ), record["name"]


def test_audits_find_nothing(built: Built) -> None:
    assert {
        finding.check
        for finding in package_checks.audits(built.request, built.request.prefix, Console())
    } >= {"glibc"}


def test_every_listed_op_is_registered_and_nothing_else(built: Built) -> None:
    """The packages' records list the ops that their sources register."""
    table = op_table.load(ROOT)
    kernels = {kernel for extension in built.extensions for kernel in extension["kernels"]}
    ours = {
        schema.partition("(")[0] for kernel in kernels for schema in table[kernel].get("CUDA", ())
    }
    listed = sorted({name for record in built.records for name in record["ops"].get("CUDA", ())})
    assert set(listed) >= ours
    assert (set(listed) == ours) is (built.kernels == "own")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_ops; "
        "print(*sorted(test_ops.registered('CUDA')), sep='\\n')"
    )
    said = conda_environment.run_in(
        built.request.prefix,
        ["python", "-c", script, str(ROOT / "recipe" / "vllm")],
        cwd=built.request.prefix,
        inherited=os.environ,
    )
    assert said.split() == listed


def test_code_for_exactly_the_planned_architectures(built: Built, tmp_path: Path) -> None:
    report = channel_build.ensure(ROOT, Console(), ["cuda-cuobjdump"], inherited=os.environ)
    conda_environment.create(tmp_path / "tools", ["cuda-cuobjdump"], [report.url])
    planned = {
        extension.name.rpartition(".")[2]: {
            name
            for k in extension.kernels
            for name in re.findall(r"code=(sm_\w+)", " ".join(k.options))
        }
        for extension in package_request.planned(built.request).extensions
    }
    # The allocator has no kernels, and cuobjdump refuses a file without kernels.
    for library in (
        path
        for path in package_checks.libraries(built.request.prefix)
        if not path.name.startswith("cumem_allocator")
    ):
        said = conda_environment.run_in(
            tmp_path / "tools",
            ["cuobjdump", "--list-elf", str(library)],
            cwd=tmp_path,
            inherited=os.environ,
        )
        assert (
            set(re.findall(r"\.(sm_\w+)\.cubin", said)) == planned[library.name.partition(".")[0]]
        ), said
    # Kernels for 9.0 also serve the target 9.0a, in addition to kernels for 9.0a alone.
    own = {"sm_90", "sm_90a"}
    assert planned["_C"] == (own if built.kernels == "own" else {"sm_90"})


@pytest.mark.parametrize("built", ["own"], indirect=True)
def test_an_edited_kernel_builds_its_output_alone(built: Built, tmp_path: Path) -> None:
    """One unit is compiled; the compiler cache has the others from another folder."""
    tree, output = copy_tree(tmp_path / "tree"), tmp_path / "output"
    package_job.claim_output(output)
    before = channel_index.publish(
        [Path(entry["path"]) for entry in built.result["packages"]], output
    )
    with (tree / "csrc" / "attention" / "flashmla" / "plan.cu").open(
        "a", encoding="utf-8"
    ) as stream:
        stream.write(
            "\nnamespace {\n[[maybe_unused]] constexpr int kEdited = "
            f"{abs(hash(tmp_path)) % 10**9};\n}}  // namespace\n"
        )
    edited = build(built.kernels, tree, output)
    kept = {path.name for path in before if re.match(r"vllm-(kernels|flash-attn)-", path.name)}
    assert set(edited.result["reused_packages"]) == kept
    assert edited.log.count("setup.py build_ext") == 1
    assert misses(edited.log) == 1, edited.log[-4000:]
    new = {Path(entry["path"]).name for entry in edited.result["packages"]} - {
        path.name for path in before
    }
    assert sorted(name.rsplit("-", 2)[0] for name in new) == ["vllm", "vllm-flashmla"]


@pytest.mark.parametrize(("device", "runs"), [("cuda", 1), ("rocm", 2)])
def test_the_kernels_compute_what_those_of_the_cpu_do(
    device: str, runs: int, tmp_path: Path
) -> None:
    """The emulation of tests/kernels (``make emulate``), with the channel's compiler and torch.

    For ROCm there are two runs: waves of 64 lanes, and of 32.
    """
    report = channel_build.ensure(ROOT, Console(), inherited=os.environ)
    specs = [
        "python 3.11.*",
        "pytorch",
        "gxx_linux-64",
        "cmake",
        "ninja",
        "packaging",
        "pytest",
        "hypothesis",
        "numpy",
    ]
    conda_environment.create(tmp_path / "env", specs, [report.url])
    said = conda_environment.run_in(
        tmp_path / "env",
        [
            "python",
            str(ROOT / "tests" / "kernels" / "emulate.py"),
            "--device",
            device,
            "--build",
            str(tmp_path / "build"),
        ],
        cwd=tmp_path,
        inherited=os.environ,
        extra={
            "CXX": str(tmp_path / "env/bin/x86_64-conda-linux-gnu-g++"),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path / "examples"),
        },
    )
    ends = re.findall(r"^\d+ (?:passed|failed).*", said, re.MULTILINE)
    assert [re.search("failed|error", end) for end in ends] == [None] * runs, said[-3000:]
