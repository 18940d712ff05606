# SPDX-License-Identifier: Apache-2.0
"""Wheels for ROCm, with the real compiler of the toolchain channel and a few kernels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from wheel_files import member, metadata, names, only_wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.build.pip.conftest import Developer, Done

pytestmark = pytest.mark.slow
ARCHITECTURE = "gfx1100"


def wheel(builder: Developer, tree: Path, folder: Path, **variables: str) -> Done:
    """Build a wheel for ROCm; the caller looks at the status."""
    command = ("-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-v")
    chosen = {
        "VLLM_TARGET_DEVICE": "rocm",
        "PYTORCH_ROCM_ARCH": ARCHITECTURE,
        **variables,
    }
    return builder.run("python", *command, "-w", str(folder), cwd=tree, **chosen)


def test_wheel_with_a_rocm_that_a_variable_or_path_names(
    builder: Developer, rocm_tree: Path, rocm: Path, tmp_path: Path, version: str
) -> None:
    release = (rocm / ".info" / "version").read_text(encoding="utf-8").strip()
    suffix = "rocm" + "".join(release.split(".")[:2])
    done = wheel(builder, rocm_tree, tmp_path / "home", ROCM_HOME=str(rocm))
    assert done.status == 0, done.log[-6000:]
    assert f"ROCm {release} in {rocm} (ROCM_HOME={rocm})" in done.log
    assert {"activation.cu", "runtime.cu", "runtime_calls.cc"} <= set(done.units)
    built = only_wheel(tmp_path / "home")
    assert built.name == f"vllm-{version}+{suffix}-cp310-abi3-linux_x86_64.whl"
    assert sorted(name for name in names(built) if name.endswith(".so")) == [
        f"vllm/{name}.abi3.so" for name in ("_C", "_moe_C", "_rocm_C", "cumem_allocator")
    ]
    assert metadata(built)["Version"] == [f"{version}+{suffix}"]
    assert metadata(built)["Requires-Dist"] == ["torch>=2.11"]
    record = json.loads(member(built, "vllm/_build_info/vllm-kernels.json"))
    assert (record["device"], record["version"]) == ("rocm", f"{version}+{suffix}")
    assert b"hipv4-amdgcn-amd-amdhsa" not in member(built, "vllm/_C.abi3.so"), "compressed"
    assert b"CCOB" in member(built, "vllm/_C.abi3.so")
    # The same ROCm by other ways: the same build folder, in which nothing is left to do.
    path = f"{builder.prefix}/bin:{rocm}/bin:/usr/bin:/bin"
    others = {
        "ROCM_PATH": ({"ROCM_PATH": str(rocm)}, f"(ROCM_PATH={rocm})"),
        "PATH": ({"PATH": path}, "(x86_64-conda-linux-gnu-clang++ on PATH)"),
    }
    for name, (variables, reason) in others.items():
        again = wheel(builder, rocm_tree, tmp_path / name, **variables)
        assert again.status == 0, again.log[-6000:]
        assert f"ROCm {release} in {rocm} {reason}" in again.log
        assert (again.units, only_wheel(tmp_path / name).name) == ([], built.name)


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("gfx1101:xnack-", "PYTORCH_ROCM_ARCH: gfx1101 has no setting xnack"),
        ("gfx906", "no kernel of 'rocm' can be built for gfx906"),
    ],
)
def test_an_architecture_without_kernels(
    builder: Developer, rocm_tree: Path, rocm: Path, tmp_path: Path, arch: str, message: str
) -> None:
    done = wheel(builder, rocm_tree, tmp_path, ROCM_HOME=str(rocm), PYTORCH_ROCM_ARCH=arch)
    assert done.status != 0
    assert done.log.count(f"error: {message}") == 1
    assert "Traceback" not in done.log.partition(message)[0]


def test_an_architecture_without_its_device_library(
    builder: Developer, rocm_tree: Path, rocm: Path, tmp_path: Path
) -> None:
    (complete,) = rocm.glob("lib/clang/*/lib/amdgcn/bitcode")
    lacking = tmp_path / "bitcode"
    lacking.mkdir()
    for path in complete.glob("*.bc"):
        if path.name != "oclc_isa_version_1201.bc":
            (lacking / path.name).symlink_to(path)
    done = wheel(
        builder,
        rocm_tree,
        tmp_path / "w",
        ROCM_HOME=str(rocm),
        PYTORCH_ROCM_ARCH="gfx1100;gfx1201",
        HIPFLAGS=f"--rocm-device-lib-path={lacking}",
    )
    assert done.status != 0
    assert done.log.count("does not compile for gfx1201: cannot find ROCm device library") == 1
    assert "expected: some of gfx90a, gfx942, gfx950, gfx1030, gfx1100, for which" in done.log
    assert done.units == []


def test_a_compiler_without_amd_gpus(
    builder: Developer, rocm_tree: Path, rocm: Path, tmp_path: Path
) -> None:
    compiler = f"{builder.prefix}/bin/x86_64-conda-linux-gnu-g++"
    done = wheel(builder, rocm_tree, tmp_path / "w", ROCM_HOME=str(rocm), HIPCXX=compiler)
    assert done.status != 0
    assert done.log.count(f"{compiler} does not compile for {ARCHITECTURE}") == 1
    assert "expected: a clang for AMD GPUs" in done.log
