# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest
from packaging.version import Version
from plan_scene import SAMPLE, TABLE, decision

from vllm_build.kernels import kernels_table, plan_resolver
from vllm_build.kernels.build_plan import FORMAT
from vllm_build.kernels.kernel_records import MEMORY_CLASSES, Kernel, KernelsTable
from vllm_build.util.errors import ConfigurationError, NothingToDoError


def test_kernels_of_the_device_are_chosen_and_the_others_explained() -> None:
    resolved = plan_resolver.resolve(TABLE, "cpu")
    assert [extension.name for extension in resolved.extensions] == ["vllm._C"]
    assert [k.name for k in resolved.extensions[0].kernels] == ["norm-cpu", "shared"]
    assert [(o.kernel, o.reason) for o in resolved.omitted] == [
        ("norm-gpu", "written for cuda, rocm, not for cpu"),
        ("fa2", "written for cuda, not for cpu"),
        ("moe", "written for cuda, not for cpu"),
    ]
    assert resolved.libraries == ("hwy",)
    assert resolved.unit_bytes == {"ordinary": MEMORY_CLASSES["ordinary"]}
    assert resolved.heavy_sources == ()
    assert resolved.sources() == (
        Path("csrc/module.cc"),
        Path("csrc/norm-cpu.cc"),
        Path("csrc/shared.cc"),
    )


def test_a_definition_is_made_for_its_own_kernel_alone() -> None:
    (extension,) = plan_resolver.resolve(TABLE, "cpu").extensions
    assert {k.name: k.definitions for k in extension.kernels} == {
        "norm-cpu": ("VLLM_NORM_CPU",),
        "shared": (),
    }


def test_components_and_files() -> None:
    resolved = plan_resolver.resolve(TABLE, "cuda")
    assert resolved.components == ("vllm-kernels", "vllm-flash-attn")
    assert resolved.output_files("vllm-kernels") == ("vllm/_C.abi3.so", "vllm/_moe_C.abi3.so")
    assert resolved.output_files(suffix=".so") == (
        "vllm/_C.so",
        "vllm/vllm_flash_attn/_vllm_fa2_C.so",
        "vllm/_moe_C.so",
    )
    assert resolved.output_files("vllm-flashmla") == ()


def test_json_says_the_same_and_is_stable() -> None:
    resolved = plan_resolver.resolve(TABLE, "cpu")
    text = resolved.to_json()
    assert text == plan_resolver.resolve(TABLE, "cpu").to_json()
    assert text.endswith("}\n")
    document = json.loads(text)
    assert document["format"] == FORMAT
    assert document["device"] == "cpu"
    (extension,) = document["extensions"]
    assert {
        key: extension[key] for key in ("name", "module", "folder", "component", "torch", "sources")
    } == {
        "name": "vllm._C",
        "module": "_C",
        "folder": "vllm",
        "component": "vllm-kernels",
        "torch": True,
        "sources": ["csrc/module.cc"],
    }
    assert extension["kernels"][0] == {
        "name": "norm-cpu",
        "sources": ["csrc/norm-cpu.cc"],
        "third_party": "",
        "third_party_sources": [],
        "definitions": ["VLLM_NORM_CPU"],
        "libraries": ["hwy"],
        "memory": "ordinary",
        "archs": [],
        "options": [],
        "generators": [],
    }
    assert document["omitted"][0] == {
        "kernel": "norm-gpu",
        "state": "device",
        "reason": "written for cuda, rocm, not for cpu",
    }


def test_the_tree_s_own_plan_is_the_same_from_any_folder(root: Path, tmp_path: Path) -> None:
    text = plan_resolver.resolve(kernels_table.load(root), "cpu").to_json()
    assert str(root) not in text
    link = tmp_path / "elsewhere"
    link.symlink_to(root)
    assert plan_resolver.resolve(kernels_table.load(link), "cpu").to_json() == text


@pytest.mark.parametrize("device", ["tpu", "empty"])
def test_pure_devices_have_nothing_to_compile(device: str) -> None:
    with pytest.raises(NothingToDoError, match=f"device '{device}' compiles nothing"):
        plan_resolver.resolve(TABLE, device)


def test_device_without_kernels() -> None:
    with pytest.raises(
        NothingToDoError, match=r"no kernel of csrc/kernels.toml is written for device 'xpu'"
    ) as caught:
        plan_resolver.resolve(TABLE, "xpu")
    assert caught.value.expected == "devices that have kernels: cuda, rocm, cpu"


@pytest.mark.parametrize("device", ["", "CPU", "gpu"])
def test_unknown_device(device: str) -> None:
    with pytest.raises(ConfigurationError, match=f"unknown device '{device}'"):
        plan_resolver.resolve(TABLE, device)


def test_heavy_units() -> None:
    resolved = plan_resolver.resolve(SAMPLE, "cuda", toolkit_version=Version("12.9"))
    assert resolved.heavy_sources == (Path("csrc/attention/fa2.cu"), Path("csrc/attention/fa3.cu"))
    assert resolved.unit_bytes == {name: MEMORY_CLASSES[name] for name in ("ordinary", "heavy")}
    # They begin first, because few of them run at once.
    memory = [kernel.memory for e in resolved.extensions for kernel in e.kernels]
    assert memory[: memory.index("ordinary")] == ["heavy"] * memory.index("ordinary")
    assert "optional" not in json.loads(resolved.to_json())["extensions"][0]


def test_json_for_cmake_has_the_options() -> None:
    document = json.loads(
        plan_resolver.resolve(
            SAMPLE, "cuda", toolkit_version=Version("12.9"), arch_list="9.0a"
        ).to_json()
    )
    assert (document["language"], document["toolkit_version"], document["targets"]) == (
        "CUDA",
        "12.9",
        ["9.0a"],
    )
    kernels = {k["name"]: k for e in document["extensions"] for k in e["kernels"]}
    assert kernels["gemm-sm90"]["options"] == ["-gencode=arch=compute_90a,code=sm_90a"]
    assert kernels["allocator"]["options"] == []
    rocm = json.loads(
        plan_resolver.resolve(
            SAMPLE, "rocm", toolkit_version=Version("6.4"), arch_list="gfx942"
        ).to_json()
    )
    assert rocm["language"] == "HIP"
    assert rocm["extensions"][0]["kernels"][0]["options"] == [
        "--offload-arch=gfx942",
        "-DVLLM_HIP_ARCHITECTURES=gfx942",
    ]


def test_optional_kernel_without_its_sources(tmp_path: Path) -> None:
    missing = Kernel(
        "mla",
        "vllm._C",
        ("cuda",),
        ("csrc/mla.cu",),
        (),
        "ordinary",
        {"cuda": ("9.0a",)},
        {},
        True,
        ("csrc/mla.cu",),
    )
    table = KernelsTable(tmp_path, TABLE.extensions, (*TABLE.kernels, missing))
    found = decision(plan_resolver.survey(table, "cuda"), "mla")
    assert (found.state, found.reason) == ("source", "optional, and csrc/mla.cu is not in the tree")
    # The same for a table without other kernels.
    with pytest.raises(ConfigurationError, match="mla: optional") as caught:
        plan_resolver.resolve(KernelsTable(tmp_path, TABLE.extensions, (missing,)), "cuda")
    assert "9.0a" in (caught.value.expected or "")


def test_only_optional_host_code_and_no_sources(tmp_path: Path) -> None:
    missing = Kernel(
        "x",
        "vllm._C",
        ("cpu",),
        ("csrc/x.cc",),
        (),
        "ordinary",
        optional=True,
        missing=("csrc/x.cc",),
    )
    with pytest.raises(ConfigurationError, match="no kernel of 'cpu' can be built:") as caught:
        plan_resolver.resolve(KernelsTable(tmp_path, TABLE.extensions, (missing,)), "cpu")
    assert caught.value.expected == "the sources of a kernel"
