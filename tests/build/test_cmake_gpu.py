# SPDX-License-Identifier: Apache-2.0
"""CMake's command lines for a GPU plan, with the real nvcc and a sample table of small kernels."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

from vllm_build.kernels import kernels_table, plan_resolver

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "tests" / "data" / "gpu_tree"
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NVCC is None, reason="no nvcc on PATH or in /usr/local/cuda"),
]


def program(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else name


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's kernels with this tree's CMake files and with an empty torch."""
    tree = tmp_path_factory.mktemp("tree")
    shutil.copytree(SAMPLE / "csrc", tree / "csrc")
    shutil.copytree(ROOT / "cmake", tree / "cmake")
    shutil.copy(ROOT / "CMakeLists.txt", tree)
    (tree / "include").mkdir()
    subprocess.run(
        ["c++", "-shared", "-fPIC", "-x", "c++", os.devnull, "-o", tree / "libtorch_cpu.so"],
        check=True,
    )
    return tree


def configure(tree: Path, build: str, archs: str, *definitions: str) -> dict[str, str]:
    """Configure a build of the sample for a list of architectures.

    Returns:
        Object file -> command line.
    """
    folder = tree / build
    folder.mkdir(exist_ok=True)
    resolved = plan_resolver.resolve(
        kernels_table.load(tree), "cuda", toolkit_version=Version("12.9"), arch_list=archs
    )
    (folder / "plan.json").write_text(resolved.to_json())
    command = [
        program("cmake"),
        "-S",
        str(tree),
        "-B",
        str(folder),
        "-G",
        "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={program('ninja')}",
    ]
    command += [
        "-DCMAKE_BUILD_TYPE=Release",
        "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON",
        f"-DCMAKE_CUDA_COMPILER={NVCC}",
    ]
    command += [
        f"-DVLLM_PLAN={folder}/plan.json",
        f"-DVLLM_TORCH_INCLUDE_DIRS={tree}/include",
        f"-DVLLM_PYTHON_INCLUDE_DIR={tree}/include",
    ]
    command += [
        f"-DVLLM_TORCH_CPU_LIBRARY={tree}/libtorch_cpu.so",
        "-DVLLM_WERROR=ON",
        *definitions,
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    entries = json.loads((folder / "compile_commands.json").read_text())
    return {entry["output"]: entry["command"].replace(str(folder), "BUILD") for entry in entries}


def options(commands: dict[str, str], source: str, prefix: str) -> list[str]:
    (command,) = [command for name, command in commands.items() if name.endswith(f"/{source}.o")]
    return [word for word in command.split() if word.startswith(prefix)]


def test_each_kernel_is_compiled_for_its_own_architectures(tree: Path) -> None:
    commands = configure(tree, "own", "8.0;9.0a;12.0f+PTX")
    assert options(commands, "norm/norm.cu", "-gencode") == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90,code=sm_90",
        "-gencode=arch=compute_120,code=sm_120",
        "-gencode=arch=compute_120,code=compute_120",
    ]
    assert options(commands, "gemm/sm90.cu", "-gencode") == [
        "-gencode=arch=compute_90a,code=sm_90a"
    ]
    assert options(commands, "gemm/blackwell.cu", "-gencode") == [
        "-gencode=arch=compute_120f,code=sm_120f",
        "-gencode=arch=compute_120f,code=compute_120f",
    ]
    # Host code has no architectures.
    assert options(commands, "norm/binding.cc", "-gencode") == []
    assert options(commands, "allocator/allocator.cc", "-gencode") == []


def test_a_definition_is_made_on_the_sources_of_its_own_kernel_alone(tree: Path) -> None:
    commands = configure(tree, "macros", "8.0;9.0a;12.0f+PTX")
    for macro, sources in {
        "VLLM_NORM_GPU": {"norm/norm.cu", "norm/binding.cc"},
        "VLLM_GEMM_SM90": {"gemm/sm90.cu"},
        "VLLM_GEMM_BLACKWELL": {"gemm/blackwell.cu"},
    }.items():
        users = {
            name.partition(".dir/csrc/")[2].removesuffix(".o")
            for name, command in commands.items()
            if f"-D{macro}" in command.split()
        }
        assert users == sources


def test_what_is_not_for_torch_is_compiled_and_linked_without_it(tree: Path) -> None:
    commands = configure(tree, "torch", "8.0")
    plain = {
        name.partition(".dir/")[0].rpartition("/")[2]
        for name, command in commands.items()
        if "TORCH_TARGET_VERSION" not in command
    }
    assert plain == {"cumem_allocator", "cumem_allocator.allocator"}
    ninja = (tree / "torch" / "build.ninja").read_text().split("\n\n")
    links = {
        block.split("build ", 1)[1].partition(":")[0]: block
        for block in ninja
        if "MODULE_LIBRARY_LINKER" in block
    }
    of_torch = {
        name for name, block in links.items() if "libtorch_cpu.so" in block and "-z,defs" in block
    }
    assert of_torch == {"_C.abi3.so", "_moe_C.abi3.so", "_vllm_fa2_C.abi3.so"}
    assert links.keys() - of_torch == {"cumem_allocator.abi3.so"}
    assert "libtorch" not in links["cumem_allocator.abi3.so"]


def test_one_more_architecture_changes_no_other_command_line(tree: Path) -> None:
    # A developer would use the same folder. Ninja compares the command lines.
    before = configure(tree, "more", "8.0;12.0f")
    after = configure(tree, "more", "8.0;9.0a;12.0f")
    changed = {
        name.partition(".dir/")[0].rpartition("/")[2]
        for name in before.keys() & after.keys()
        if before[name] != after[name]
    }
    new = {name.partition(".dir/")[0].rpartition("/")[2] for name in after.keys() - before.keys()}
    # norm.cu is written for 9.0, too; every other unit for 9.0a is new.
    assert changed == {"_C.norm-gpu"}
    assert new == {
        "_C.gemm-sm90",
        "_vllm_fa3_C",
        "_vllm_fa3_C.fa3",
        "_flashmla_C",
        "_flashmla_C.flashmla",
    }
    assert not before.keys() - after.keys()
    (norm,) = [name for name in before if before[name] != after.get(name)]
    assert norm.endswith("norm.cu.o")
    assert before[norm].split() == [
        word for word in after[norm].split() if word != "-gencode=arch=compute_90,code=sm_90"
    ]


def test_no_job_count_and_no_architecture_of_cmake_s_own_is_in_command_lines(tree: Path) -> None:
    commands = configure(tree, "jobs", "9.0a", "-DVLLM_HEAVY_JOBS=2")
    ninja = tree / "jobs"
    assert "depth = 2" in (ninja / "CMakeFiles" / "rules.ninja").read_text()
    blocks = (ninja / "build.ninja").read_text().split("\n\n")
    heavy = {
        block.split()[1].rstrip(":")
        for block in blocks
        if "pool = heavy" in block
        for block in [block[block.index("build ") :]]
    }
    assert {Path(name).name for name in heavy} == {"fa2.cu.o", "fa3.cu.o"}
    assert (
        configure(tree, "jobs", "9.0a", "-DVLLM_HEAVY_JOBS=7", "-DCMAKE_CUDA_ARCHITECTURES=90a")
        == commands
    )
    assert "depth = 7" in (ninja / "CMakeFiles" / "rules.ninja").read_text()


@pytest.mark.parametrize("value", ["0", "-1", "abc", ""])
def test_malformed_pool_depth(tree: Path, value: str) -> None:
    with pytest.raises(AssertionError, match="VLLM_HEAVY_JOBS is"):
        configure(tree, "depth", "9.0a", f"-DVLLM_HEAVY_JOBS={value}")


def build(tree: Path, name: str, threads: int) -> str:
    environ = {**os.environ, "NVCC_APPEND_FLAGS": f"--threads={threads}"}
    found = subprocess.run(
        [program("cmake"), "--build", str(tree / name), "--parallel", "1"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_the_sample_compiles_and_only_what_changed_is_compiled_again(tree: Path) -> None:
    said = subprocess.run(
        [str(NVCC), "--version"], capture_output=True, text=True, check=True
    ).stdout
    release = re.search(r"release (\d+\.\d+)", said)
    if release is None or Version(release[1]) < Version("12.9"):
        pytest.skip("the sample has code for families (12.0f), which nvcc compiles since 12.9")
    configure(tree, "real", "8.0;9.0a")
    build(tree, "real", 1)
    libraries = {path.name: path.read_bytes() for path in (tree / "real").glob("*.abi3.so")}
    assert libraries.keys() == {
        f"{name}.abi3.so"
        for name in ("_C", "_moe_C", "cumem_allocator", "_vllm_fa2_C", "_vllm_fa3_C", "_flashmla_C")
    }
    # With another pool depth and number of threads nothing is compiled.
    configure(tree, "real", "8.0;9.0a", "-DVLLM_HEAVY_JOBS=3")
    assert "Building" not in build(tree, "real", 2)
    # A new architecture recompiles the two kernels with code for it, and relinks their library.
    configure(tree, "real", "8.0;9.0a;12.0f")
    said = build(tree, "real", 2)
    assert {line.rpartition("/")[2] for line in said.splitlines() if "Building" in line} == {
        "norm.cu.o",
        "blackwell.cu.o",
    }
    assert [line.rpartition(" ")[2] for line in said.splitlines() if "Linking" in line] == [
        "_C.abi3.so"
    ]
    # Going back gives the same bytes for any number of threads, because nvcc names its intermediate
    # files after the object.
    configure(tree, "real", "8.0;9.0a")
    shutil.rmtree(tree / "real" / "CMakeFiles" / "_C.norm-gpu.dir")
    build(tree, "real", 2)
    assert {path.name: path.read_bytes() for path in (tree / "real").glob("*.abi3.so")} == libraries
