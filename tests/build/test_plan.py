# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from vllm_build.architectures import gpu_targets
from vllm_build.kernels import kernels_table, plan_resolver
from vllm_build.kernels.kernels_table import Extension, Kernel, KernelsTable
from vllm_build.settings.build_settings import Settings
from vllm_build.util.errors import ConfigurationError, NothingToDoError

if TYPE_CHECKING:
    from vllm_build.kernels.build_plan import Decision, Plan


def kernel(
    name: str,
    *devices: str,
    extension: str = "vllm._C",
    definitions: tuple[str, ...] = (),
    libraries: tuple[str, ...] = (),
) -> Kernel:
    return Kernel(
        name,
        extension,
        devices,
        (f"csrc/{name}.cc",),
        libraries,
        "ordinary",
        definitions=definitions,
    )


TABLE = KernelsTable(
    Path("csrc/kernels.toml"),
    (
        Extension("vllm._C", "vllm-kernels", ("csrc/module.cc",)),
        Extension("vllm.vllm_flash_attn._vllm_fa2_C", "vllm-flash-attn", ("csrc/fa_module.cc",)),
        Extension("vllm._moe_C", "vllm-kernels", ()),
    ),
    (
        kernel("norm-cpu", "cpu", definitions=("VLLM_NORM_CPU",), libraries=("hwy",)),
        kernel("norm-gpu", "cuda", "rocm"),
        kernel("shared", "cpu", "cuda"),
        kernel("fa2", "cuda", extension="vllm.vllm_flash_attn._vllm_fa2_C"),
        kernel("moe", "cuda", extension="vllm._moe_C"),
    ),
)


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
    assert resolved.unit_bytes == {"ordinary": kernels_table.MEMORY_CLASSES["ordinary"]}
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
    assert document["format"] == plan_resolver.FORMAT
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


SAMPLE = kernels_table.load(Path(__file__).resolve().parents[1] / "data" / "gpu_tree")


def decision(resolved: Plan, name: str) -> Decision:
    (found,) = [d for d in resolved.decisions if d.kernel.name == name]
    return found


@pytest.mark.parametrize(
    ("kernel_name", "device", "toolkit", "targets", "state", "archs", "reason"),
    [
        ("norm-gpu", "cuda", "12.9", "8.6;9.0a", "built", "8.0 9.0", "for 8.0 9.0"),
        ("norm-gpu", "cuda", "12.9", "9.0+PTX", "built", "9.0+PTX", "for 9.0+PTX"),
        ("norm-host", "cuda", "12.9", "9.0", "device", "", "written for cpu, xpu, not for cuda"),
        (
            "gemm-sm90",
            "cuda",
            "12.9",
            "8.0",
            "arch",
            "",
            "written for 9.0a, which serve none of 8.0",
        ),
        ("gemm-sm90", "cuda", "12.9", "9.0", "built", "9.0a", "for 9.0a"),
        (
            "gemm-sm90",
            "cuda",
            "11.8",
            "9.0",
            "toolkit",
            "",
            "gemm-sm90 needs CUDA >= 12.0, this is 11.8",
        ),
        ("gemm-blackwell", "cuda", "12.9", "10.3;12.1a", "built", "10.0f 12.0f", "for 10.0f 12.0f"),
        (
            "gemm-blackwell",
            "cuda",
            "12.8",
            "10.0;8.0",
            "toolkit",
            "",
            "10.0f needs CUDA >= 12.9; 12.0f needs CUDA >= 12.9",
        ),
        (
            "gemm-blackwell",
            "cuda",
            "12.8",
            "8.0",
            "arch",
            "",
            "written for 10.0f 12.0f, which serve none of 8.0",
        ),
        ("gemm-blackwell", "cuda", None, "10.0;8.0", "built", "10.0f", "for 10.0f"),
        (
            "fa3",
            "cuda",
            "12.2",
            "9.0a",
            "toolkit",
            "",
            "vllm.vllm_flash_attn._vllm_fa3_C needs CUDA >= 12.3, this is 12.2",
        ),
        (
            "fa3",
            "cuda",
            "12.9",
            "9.0",
            "arch",
            "",
            "vllm.vllm_flash_attn._vllm_fa3_C needs 9.0a in the list, which is 9.0",
        ),
        (
            "fa2",
            "cuda",
            "12.9",
            "7.5",
            "arch",
            "",
            (
                "vllm.vllm_flash_attn._vllm_fa2_C needs an architecture >= 8.0 in the list, which "
                "is "
                "7.5"
            ),
        ),
        ("fa2", "cuda", "12.9", "9.0a;12.0f", "built", "8.0+PTX", "for 8.0+PTX"),
        ("allocator", "cuda", "12.9", "9.0a", "built", "", "for cuda"),
        (
            "attention-rocm",
            "rocm",
            "6.4",
            "gfx90a;gfx942",
            "built",
            "gfx90a gfx942",
            "for gfx90a gfx942",
        ),
        ("attention-rocm", "rocm", "6.4", "gfx90a;gfx950", "built", "gfx90a", "for gfx90a"),
        (
            "attention-rocm",
            "rocm",
            "6.4",
            "gfx90a:xnack-",
            "built",
            "gfx90a:xnack-",
            "for gfx90a:xnack-",
        ),
        ("attention-rocm", "rocm", "6.4", "gfx942;gfx1100", "built", "gfx942", "for gfx942"),
        (
            "attention-rocm",
            "rocm",
            "6.4",
            "gfx1100",
            "arch",
            "",
            "written for gfx90a gfx942 gfx950, which serve none of gfx1100",
        ),
    ],
)
def test_states_and_reasons(
    kernel_name: str,
    device: str,
    toolkit: str | None,
    targets: str,
    state: str,
    archs: str,
    reason: str,
) -> None:
    resolved = plan_resolver.survey(
        SAMPLE, device, toolkit_version=Version(toolkit) if toolkit else None, arch_list=targets
    )
    found = decision(resolved, kernel_name)
    assert (found.state, " ".join(found.archs), found.reason) == (state, archs, reason)


@pytest.mark.parametrize(
    ("kernel_name", "toolkit", "targets", "unserved"),
    [
        (
            "gemm-sm90",
            "12.9",
            "8.0;9.0a;10.0f+PTX",
            {"8.0": "none of 9.0a serves it", "10.0f+PTX": "none of 9.0a serves it"},
        ),
        (
            "gemm-blackwell",
            "12.8",
            "8.0;12.0+PTX",
            {"8.0": "none of 10.0f 12.0f serves it", "12.0+PTX": "12.0f needs CUDA >= 12.9"},
        ),
        ("norm-gpu", "12.9", "7.0;8.0", {"7.0": "none of 7.5 8.0 9.0 10.0 12.0+PTX serves it"}),
        ("norm-gpu", "13.0", "7.5;12.1", {}),
    ],
)
def test_unserved_targets_are_listed_with_the_reason(
    kernel_name: str, toolkit: str, targets: str, unserved: dict[str, str]
) -> None:
    resolved = plan_resolver.survey(
        SAMPLE, "cuda", toolkit_version=Version(toolkit), arch_list=targets
    )
    assert {u.target: u.reason for u in decision(resolved, kernel_name).unserved} == unserved
    listed = {
        entry["target"]: entry["reason"]
        for entry in json.loads(resolved.to_json())["unserved"]
        if entry["kernel"] == kernel_name
    }
    assert listed == unserved


def test_heavy_units() -> None:
    resolved = plan_resolver.resolve(SAMPLE, "cuda", toolkit_version=Version("12.9"))
    assert resolved.heavy_sources == (Path("csrc/attention/fa2.cu"), Path("csrc/attention/fa3.cu"))
    assert resolved.unit_bytes == dict(kernels_table.MEMORY_CLASSES)
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
    assert rocm["extensions"][0]["kernels"][0]["options"] == ["--offload-arch=gfx942"]


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
    # And where it is all there is.
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


@pytest.mark.parametrize("device", ["cpu", "xpu", "tpu", "empty"])
def test_a_list_for_a_device_without_architectures(device: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"--arch-list: device '{device}' has no GPU architectures"
    ):
        plan_resolver.survey(SAMPLE, device, arch_list="8.0", arch_source="--arch-list")


@pytest.mark.parametrize("text", ["", "+PTX", "8.0,9.0", "sm_90", "8.1", "gfx90a", "9.0b"])
def test_malformed_list_names_the_variable(text: str) -> None:
    with pytest.raises(ConfigurationError, match="TORCH_CUDA_ARCH_LIST"):
        plan_resolver.resolve(SAMPLE, "cuda", arch_list=text)


@pytest.mark.parametrize(
    ("device", "environ", "targets"),
    [
        ("cuda", {"TORCH_CUDA_ARCH_LIST": "9.0a 8.0"}, ("8.0", "9.0a")),
        ("cuda", {"CMAKE_CUDA_ARCHITECTURES": "90a-real"}, ("9.0a",)),
        ("rocm", {"PYTORCH_ROCM_ARCH": "gfx942"}, ("gfx942",)),
        ("cuda", {"PYTORCH_ROCM_ARCH": "gfx942"}, gpu_targets.default("cuda", None)),
        ("cpu", {"TORCH_CUDA_ARCH_LIST": "8.0"}, ()),
    ],
)
def test_the_environment_chooses(
    device: str, environ: dict[str, str], targets: tuple[str, ...]
) -> None:
    assert (
        plan_resolver.for_settings(SAMPLE, device, None, Settings.from_environ(environ)).targets
        == targets
    )


def test_the_environment_s_mistakes_are_its_own() -> None:
    with pytest.raises(ConfigurationError, match="PYTORCH_ROCM_ARCH"):
        plan_resolver.for_settings(
            SAMPLE, "rocm", None, Settings.from_environ({"PYTORCH_ROCM_ARCH": "9.0"})
        )


TARGETS = st.lists(
    st.sampled_from(["7.5", "8.0", "8.6", "8.9", "9.0", "9.0a", "10.0f", "10.3", "12.0", "12.1a"]),
    min_size=1,
)
TOOLKITS = st.none() | st.sampled_from(
    [Version(text) for text in ("11.8", "12.2", "12.8", "12.9", "13.0")]
)


@given(TARGETS, TOOLKITS, st.booleans())
def test_every_kernel_has_one_state_and_every_target_one_fate(
    targets: list[str],
    toolkit: Version | None,
    ptx: bool,  # noqa: FBT001
) -> None:
    text = ";".join(targets) + ("+PTX" if ptx else "")
    resolved = plan_resolver.survey(SAMPLE, "cuda", toolkit_version=toolkit, arch_list=text)
    assert (
        resolved.to_json()
        == plan_resolver.survey(
            SAMPLE, "cuda", toolkit_version=toolkit, arch_list=" ".join(reversed(text.split(";")))
        ).to_json()
    )
    assert [d.kernel.name for d in resolved.decisions] == [k.name for k in SAMPLE.kernels]
    built = {k.name for e in resolved.extensions for k in e.kernels}
    assert built == {d.kernel.name for d in resolved.decisions if d.state == "built"}
    for d in resolved.decisions:
        assert d.reason
        assert all(gpu_targets.why_not_compiled("cuda", arch, toolkit) is None for arch in d.archs)
        if d.archs:
            assert {u.target for u in d.unserved} < set(resolved.targets)


@given(TARGETS, st.sampled_from(["7.5", "8.0", "9.0a", "10.0f", "12.0"]))
def test_one_more_target_changes_no_other_kernel(targets: list[str], more: str) -> None:
    before = plan_resolver.survey(SAMPLE, "cuda", arch_list=";".join(targets))
    after = plan_resolver.survey(SAMPLE, "cuda", arch_list=";".join([*targets, more]))
    for old, new in zip(before.decisions, after.decisions, strict=True):
        if old.state == "built" and old.kernel.archs:
            _, unserved = gpu_targets.match("cuda", old.kernel.archs["cuda"], (more,))
            assert set(old.archs) <= set(new.archs)
            assert not unserved or new.archs == old.archs
