# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from vllm_build import kernels_table, plan
from vllm_build.errors import ConfigurationError, NothingToDoError
from vllm_build.kernels_table import Extension, Kernel, KernelsTable


def kernel(name: str, *devices: str, extension: str = "vllm._C", macro: str | None = None, libraries: tuple[str, ...] = ()) -> Kernel:
    return Kernel(name, extension, devices, (f"csrc/{name}.cc",), macro, libraries, "ordinary")


TABLE = KernelsTable(
    Path("csrc/kernels.toml"),
    (
        Extension("vllm._C", "vllm-kernels", ("csrc/module.cc",)),
        Extension("vllm.vllm_flash_attn._vllm_fa2_C", "vllm-flash-attn", ("csrc/fa_module.cc",)),
        Extension("vllm._moe_C", "vllm-kernels", ()),
    ),
    (
        kernel("norm-cpu", "cpu", macro="VLLM_NORM_CPU", libraries=("hwy",)),
        kernel("norm-gpu", "cuda", "rocm"),
        kernel("shared", "cpu", "cuda"),
        kernel("fa2", "cuda", extension="vllm.vllm_flash_attn._vllm_fa2_C"),
        kernel("moe", "cuda", extension="vllm._moe_C"),
    ),
)


def test_kernels_of_the_device_are_chosen_and_the_others_explained() -> None:
    resolved = plan.resolve(TABLE, "cpu")
    assert [extension.name for extension in resolved.extensions] == ["vllm._C"]
    assert [k.name for k in resolved.extensions[0].kernels] == ["norm-cpu", "shared"]
    assert [(o.kernel, o.reason) for o in resolved.omitted] == [
        ("norm-gpu", "written for cuda, rocm, not for cpu"),
        ("fa2", "written for cuda, not for cpu"),
        ("moe", "written for cuda, not for cpu"),
    ]
    assert resolved.libraries == ("hwy",)
    assert resolved.unit_bytes == kernels_table.MEMORY_CLASSES["ordinary"]
    assert resolved.sources() == (Path("csrc/module.cc"), Path("csrc/norm-cpu.cc"), Path("csrc/shared.cc"))


def test_a_macro_is_defined_for_its_own_kernel_alone() -> None:
    (extension,) = plan.resolve(TABLE, "cpu").extensions
    assert {k.name: k.definitions for k in extension.kernels} == {"norm-cpu": ("VLLM_NORM_CPU",), "shared": ()}


def test_components_and_files() -> None:
    resolved = plan.resolve(TABLE, "cuda")
    assert resolved.components == ("vllm-kernels", "vllm-flash-attn")
    assert resolved.output_files("vllm-kernels") == ("vllm/_C.abi3.so", "vllm/_moe_C.abi3.so")
    assert resolved.output_files(suffix=".so") == ("vllm/_C.so", "vllm/vllm_flash_attn/_vllm_fa2_C.so", "vllm/_moe_C.so")
    assert resolved.output_files("vllm-flashmla") == ()


def test_json_says_the_same_and_is_stable() -> None:
    resolved = plan.resolve(TABLE, "cpu")
    text = resolved.to_json()
    assert text == plan.resolve(TABLE, "cpu").to_json()
    assert text.endswith("}\n")
    document = json.loads(text)
    assert document["format"] == plan.FORMAT
    assert document["device"] == "cpu"
    (extension,) = document["extensions"]
    assert {key: extension[key] for key in ("name", "module", "folder", "component", "sources")} == {
        "name": "vllm._C",
        "module": "_C",
        "folder": "vllm",
        "component": "vllm-kernels",
        "sources": ["csrc/module.cc"],
    }
    assert extension["kernels"][0] == {
        "name": "norm-cpu",
        "sources": ["csrc/norm-cpu.cc"],
        "definitions": ["VLLM_NORM_CPU"],
        "libraries": ["hwy"],
        "memory": "ordinary",
    }
    assert document["omitted"][0] == {"kernel": "norm-gpu", "reason": "written for cuda, rocm, not for cpu"}


def test_the_tree_s_own_plan_is_the_same_from_any_folder(root: Path, tmp_path: Path) -> None:
    text = plan.resolve(kernels_table.load(root), "cpu").to_json()
    assert str(root) not in text
    link = tmp_path / "elsewhere"
    link.symlink_to(root)
    assert plan.resolve(kernels_table.load(link), "cpu").to_json() == text


@pytest.mark.parametrize("device", ["tpu", "empty"])
def test_pure_devices_have_nothing_to_compile(device: str) -> None:
    with pytest.raises(NothingToDoError, match=f"device '{device}' compiles nothing"):
        plan.resolve(TABLE, device)


def test_device_without_kernels() -> None:
    with pytest.raises(NothingToDoError, match=r"no kernel of csrc/kernels.toml is written for device 'xpu'") as caught:
        plan.resolve(TABLE, "xpu")
    assert caught.value.expected == "devices that have kernels: cuda, rocm, cpu"


@pytest.mark.parametrize("device", ["", "CPU", "gpu"])
def test_unknown_device(device: str) -> None:
    with pytest.raises(ConfigurationError, match=f"unknown device '{device}'"):
        plan.resolve(TABLE, device)
