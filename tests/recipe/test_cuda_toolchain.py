# SPDX-License-Identifier: Apache-2.0
"""Real packages of the CUDA toolkit: built, installed, activated, and used to compile a kernel.

This needs no GPU. A toolkit is a download of 100 MB and takes a minute and a half to package, and
stays in the channel afterwards. ``make test`` tests the newest toolkit, and ``make test-full`` all.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from full_suite import FULL, full_only
from packaging.version import Version
from trees import copy_tree

from vllm_build.architectures import cuda_archs, gpu_targets
from vllm_build.conda import needed_builds, package_request, recipe_outputs, variants
from vllm_build.conda.environments import conda_environment, solver
from vllm_build.digests import recipe_stamp
from vllm_build.packing import recipe_builder
from vllm_build.settings.build_settings import Settings
from vllm_build.target.toolkits.cuda_toolkit import find_cuda
from vllm_build.toolchain import channel_build, toolchain_builds
from vllm_build.util import paths
from vllm_build.util.console import Console

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
ROOT = paths.source_root()
EVERY = sorted(
    (
        build.variant["cuda_release"]
        for build in toolchain_builds.load(ROOT)
        if "cuda-nvcc" in build.makes
    ),
    key=lambda r: [int(n) for n in r.split(".")],
)
RELEASES = EVERY if FULL else EVERY[-1:]
SAMPLES = ROOT / "toolchain" / "recipes" / "cuda-nvcc"


class Toolkit:
    """An environment with one release of nvcc, the host compiler and cuobjdump."""

    def __init__(self, release: str, prefix: Path) -> None:
        self.release, self.prefix = release, prefix
        self.report = channel_build.ensure(
            ROOT, Console(), [f"cuda-nvcc-{release}"], inherited=os.environ
        )
        specs = ["cuda-nvcc", f"cuda-version {release}.*", "cuda-cuobjdump"]
        self.records = {
            r["name"]: r for r in conda_environment.create(prefix, specs, [self.report.url])
        }

    def run(self, script: str, folder: Path) -> str:
        """Run a script in the activated environment and return its output."""
        enter = 'for script in "$CONDA_PREFIX"/etc/conda/activate.d/*.sh; do . "$script"; done\n'
        done = subprocess.run(
            ["/bin/bash", "-euc", enter + script],
            cwd=folder,
            # conda sorts the scripts by their bytes. nvcc's begins with a tilde, so it runs after
            # the host compiler's.
            env={**conda_environment.environ_of(self.prefix, os.environ), "LC_ALL": "C"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture(scope="module", params=RELEASES)
def toolkit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Toolkit:
    return Toolkit(request.param, tmp_path_factory.mktemp("cuda") / "env")


def test_every_part_is_of_the_release_that_cuda_version_names(toolkit: Toolkit) -> None:
    assert toolkit.records["cuda-version"]["version"] == toolkit.release
    for name in (
        "cuda-nvcc-tools",
        "cuda-nvvm-tools",
        "cuda-crt-tools",
        "cuda-cudart",
        "cuda-cccl_linux-64",
    ):
        assert toolkit.records[name]["version"].startswith(toolkit.release + "."), name
    assert {r["channel"].rstrip("/") for r in toolkit.records.values()} == {
        toolkit.report.url.rstrip("/")
    }


def test_a_kernel_has_code_for_exactly_the_requested_architectures(
    toolkit: Toolkit, tmp_path: Path
) -> None:
    one = "-gencode arch=compute_90a,code=sm_90a"
    said = toolkit.run(
        f"nvcc -std=c++17 -O2 {one} -Xcompiler -fPIC -c {SAMPLES}/test_kernel.cu -o kernel.o\n"
        '"$CXX" -shared kernel.o -o libkernel.so $LDFLAGS -lcudart\n'
        f'nvcc -std=c++17 {one} -gencode "arch=compute_80,code=[sm_80,compute_80]" -c '
        f"{SAMPLES}/test_kernel.cu -o two.o\n"
        "cuobjdump --list-elf --list-ptx libkernel.so; echo two; cuobjdump --list-elf --list-ptx "
        "two.o",
        tmp_path,
    )
    library, two = said.split("two\n", 1)
    assert set(re.findall(r"sm_\w+\.\w+", library)) == {"sm_90a.cubin"}, said
    assert set(re.findall(r"sm_\w+\.\w+", two)) == {"sm_90a.cubin", "sm_80.cubin", "sm_80.ptx"}, (
        said
    )


def test_a_program_linked_with_the_runtime_runs_without_a_gpu(
    toolkit: Toolkit, tmp_path: Path
) -> None:
    said = toolkit.run(
        f"nvcc -std=c++17 -arch=sm_90a {SAMPLES}/test_kernel.cu {SAMPLES}/test_main.cc -o program "
        "-cudart shared\n"
        f"nvcc -std=c++17 -arch=sm_90a {SAMPLES}/test_kernel.cu {SAMPLES}/test_main.cc -o alone\n"
        '"$READELF" -d program alone | grep -e File -e cudart\n'
        'LD_LIBRARY_PATH="$CONDA_PREFIX/lib" ./program && ./alone',
        tmp_path,
    )
    shared, alone = said.split("File: alone")
    assert f"[libcudart.so.{toolkit.release.split('.', maxsplit=1)[0]}]" in shared
    assert "libcudart" not in alone
    assert len(re.findall(r"^(?:no )?device: cuda\w+$", alone, re.MULTILINE)) == 2, said


def test_the_stub_of_the_driver_is_for_linking_only(toolkit: Toolkit, tmp_path: Path) -> None:
    (tmp_path / "init.cc").write_text(
        "#include <cuda.h>\nint main() { return cuInit(0); }\n", encoding="utf-8"
    )
    said = toolkit.run('nvcc init.cc -o init -lcuda && "$READELF" -d init', tmp_path)
    assert "[libcuda.so.1]" in said
    assert not list((toolkit.prefix / "lib").glob("libcuda.so*"))
    assert not list((toolkit.prefix / "targets/x86_64-linux/lib").glob("libcuda.so*"))


def test_the_allocator_declares_the_driver_as_the_toolkit_does(
    toolkit: Toolkit, tmp_path: Path
) -> None:
    check = ROOT / "tests" / "data" / "fake_cuda" / "check_driver.cc"
    toolkit.run(
        f'"$CXX" $CXXFLAGS -std=c++17 -Wall -Wextra -Werror -fsyntax-only -I{ROOT / "csrc"} '
        f"-I{check.parents[1]} {check}",
        tmp_path,
    )


def test_the_host_compiler_is_the_environments(toolkit: Toolkit, tmp_path: Path) -> None:
    said = toolkit.run("nvcc --dryrun -c " + str(SAMPLES / "test_kernel.cu"), tmp_path)
    compilers = {
        word.replace('"', "")
        for word in re.findall(r"^#\$ (\S+) -D__CUDA_ARCH", said, re.MULTILINE)
    }
    assert compilers == {str(toolkit.prefix / "bin/x86_64-conda-linux-gnu-g++")}, said
    assert str(toolkit.prefix / "bin/../nvvm/bin") in said


def test_the_build_finds_the_toolkit_by_its_own_rules(toolkit: Toolkit) -> None:
    found = find_cuda(
        Settings.from_environ({"PATH": "/usr/bin:/bin", "CONDA_PREFIX": str(toolkit.prefix)})
    )
    assert found is not None
    assert (str(found.version), found.root) == (
        toolkit.release,
        toolkit.prefix / "targets/x86_64-linux",
    )


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_deactivation_restores_the_previous_values(
    toolkit: Toolkit, shell: str, tmp_path: Path
) -> None:
    script = """set -eu
LC_ALL=C; export LC_ALL; NVCC_PREPEND_FLAGS=mine; export NVCC_PREPEND_FLAGS
unset CXXFLAGS NVCC_APPEND_FLAGS CUDAARCHS || true
for script in "$CONDA_PREFIX"/etc/conda/activate.d/*.sh; do . "$script"; done
test "$NVCC_PREPEND_FLAGS" = "mine -ccbin=$CXX"
case $CXXFLAGS in *"$CONDA_PREFIX/targets/x86_64-linux/include"*) ;; *) exit 1 ;; esac
for script in $(ls -r "$CONDA_PREFIX"/etc/conda/deactivate.d/*.sh); do . "$script"; done
echo "${NVCC_PREPEND_FLAGS-unset} ${CXXFLAGS-unset} ${NVCC_APPEND_FLAGS-unset}" \\
  "${CUDAARCHS-unset} ${CXX-unset}"
set | grep -i -E "^(CONDA_BACKUP|_cuda)" || echo nothing left
"""
    done = subprocess.run(
        [shell, "-c", script],
        cwd=tmp_path,
        env=conda_environment.environ_of(toolkit.prefix, os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "mine unset unset unset unset\nnothing left\n"


def test_the_environments_of_the_variant_can_be_made(toolkit: Toolkit, tmp_path: Path) -> None:
    (variant,) = (
        v
        for name in variants.names(ROOT)
        if str((v := variants.load(ROOT, name)).toolkit_version) == toolkit.release
    )
    request = package_request.Request(
        ROOT, variant, "local", tmp_path, Settings.from_environ(os.environ)
    )
    needed_builds.require_toolchain(request)
    url = channel_build.ensure(
        ROOT, Console(), needed_builds.toolchain_builds(request), inherited=os.environ
    ).url
    asked = recipe_outputs.environments(ROOT, variant, recipe_stamp.values(ROOT))
    build, host = (
        {r.name.normalized: r for r in solver.solve_specs(specs, [url])} for specs in asked
    )
    assert str(build["cuda-nvcc_linux-64"].version).startswith(f"{toolkit.release}.")
    assert str(build["gcc_impl_linux-64"].version).startswith("12.")
    assert str(host["cuda-version"].version) == toolkit.release
    assert "libtorch" in host


# Replaces build.sh: compiles one kernel with the compilers of the build environment.
STAND_IN = r"""
set -euo pipefail
nvcc=$(command -v nvcc)
case $nvcc in "$BUILD_PREFIX"/*) ;; *) echo "nvcc is $nvcc"; exit 1 ;; esac
mkdir -p "$SP_DIR"/vllm/{_build_info,vllm_flash_attn} one licenses/cuda-cudart-static
echo '__global__ void set(int* p) { *p = 1; }' > one/set.cu
echo 'extern "C" void launch(int* p) { set<<<1, 1>>>(p); }' >> one/set.cu
cat > one/CMakeLists.txt <<'EOF'
cmake_minimum_required(VERSION 3.26)
project(one LANGUAGES CXX CUDA)
add_library(_C MODULE set.cu)
set_target_properties(_C PROPERTIES PREFIX "" SUFFIX .abi3.so)
set_target_properties(_C PROPERTIES BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "$ORIGIN/../../..")
EOF
cmake -G Ninja -S one -B one/build -DCMAKE_CUDA_ARCHITECTURES=90a-real $CMAKE_ARGS
cmake --build one/build --verbose
declare -A libraries=(
  [vllm-kernels]="_C _moe_C cumem_allocator" [vllm-flashmla]=_flashmla_C
  [vllm-flash-attn]="vllm_flash_attn/_vllm_fa2_C vllm_flash_attn/_vllm_fa3_C"
)
for name in ${libraries[$PKG_NAME]}; do cp one/build/_C.abi3.so "$SP_DIR/vllm/$name.abi3.so"; done
echo text > licenses/cuda-cudart-static/LICENSE
echo '{}' > "$SP_DIR/vllm/_build_info/$PKG_NAME.json"
echo "device $VLLM_TARGET_DEVICE, architectures $TORCH_CUDA_ARCH_LIST, usual ones $CUDAARCHS"
"""


@full_only
def test_the_recipe_makes_a_package_with_the_compiler_of_its_build_environment(
    toolkit: Toolkit, tmp_path: Path
) -> None:
    tree = copy_tree(tmp_path / "tree")
    (tree / "recipe" / "build.sh").write_text(STAND_IN, encoding="utf-8")
    (variant,) = (
        v
        for name in variants.names(tree)
        if str((v := variants.load(tree, name)).toolkit_version) == toolkit.release
    )
    request = package_request.Request(
        tree, variant, "local", tmp_path / "output", Settings.from_environ(os.environ)
    )
    url = channel_build.ensure(
        ROOT, Console(), needed_builds.toolchain_builds(request), inherited=os.environ
    ).url
    built = recipe_builder.build(
        tree / "recipe",
        variant_files=[variant.path],
        variants={key: [value] for key, value in package_request.stamps(request).items()},
        channels=[url],
        output_dir=request.output,
        test="skip",  # the package's tests need the real kernels
        console=Console(),
        inherited=os.environ,
    )
    assert sorted(file.name for file in built) == sorted(
        output.filename for output in package_request.expected(request)
    )
    index = json.loads((request.output / "linux-64" / "repodata.json").read_text(encoding="utf-8"))
    (record,) = (r for r in index["packages.conda"].values() if r["name"] == "vllm-kernels")
    major = toolkit.release.split(".", maxsplit=1)[0]
    assert {f"__cuda >={major}", f"cuda-version >={toolkit.release},<{int(major) + 1}"} <= set(
        record["depends"]
    )
    assert not [
        name for name in record["depends"] if name.startswith(("cuda-cudart", "cuda-driver"))
    ]
    assert "track_features" not in record


def test_the_tables_match_this_release(toolkit: Toolkit, tmp_path: Path) -> None:
    said = toolkit.run("ptxas --help", tmp_path)
    listed = set(
        re.findall(
            r"'sm_(\w+)'",
            said[said.index("--gpu-name") :].split("default value", 1)[0].split("\n--", 1)[0],
        )
    )
    assert listed
    for name in listed:
        digits = name.rstrip("af")
        arch = f"{digits[:-1]}.{digits[-1]}{name[len(digits) :]}"
        assert gpu_targets.why_not_compiled("cuda", arch, Version(toolkit.release)) is None, name


def test_family_code_is_assembled_for_its_family_alone(toolkit: Toolkit, tmp_path: Path) -> None:
    # The PTX version that supports every chip of the release.
    isa = "8.8" if Version(toolkit.release) < Version("13.0") else "9.0"
    for number in cuda_archs.FAMILIES:
        if gpu_targets.why_not_compiled(
            "cuda", f"{number[0]}.{number[1]}f", Version(toolkit.release)
        ):
            continue
        (tmp_path / "k.ptx").write_text(
            f".version {isa}\n.target sm_{number[0]}{number[1]}f\n.address_size 64\n"
            ".visible .entry k() { ret; }\n",
            encoding="utf-8",
        )
        for chip in cuda_archs.FAMILIES:
            if gpu_targets.why_not_compiled(
                "cuda", f"{chip[0]}.{chip[1]}", Version(toolkit.release)
            ):
                continue
            done = toolkit.run(
                f"ptxas -arch=sm_{chip[0]}{chip[1]} k.ptx -o k.cubin > said 2>&1 && echo yes || "
                "echo no",
                tmp_path,
            )
            assert (done.strip() == "yes") == (chip in cuda_archs.FAMILIES[number]), (
                f"code of {number}f on {chip}"
            )
