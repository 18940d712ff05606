# SPDX-License-Identifier: Apache-2.0
"""Build contract, section 2: which extensions a build has.

The sample table declares every extension of the contract.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm_build.kernels.kernel_records import KernelsTable

from pathlib import Path

import pytest
from packaging.version import Version

from vllm_build.kernels import kernels_table, plan_resolver
from vllm_build.util.errors import ConfigurationError, NothingToDoError, ToolchainError

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "gpu_tree"
C, MOE, CUMEM, ROCM = "vllm._C", "vllm._moe_C", "vllm.cumem_allocator", "vllm._rocm_C"
FA2, FA3, MLA = (
    "vllm.vllm_flash_attn._vllm_fa2_C",
    "vllm.vllm_flash_attn._vllm_fa3_C",
    "vllm._flashmla_C",
)


@pytest.fixture(scope="module")
def table() -> KernelsTable:
    return kernels_table.load(SAMPLE)


@pytest.mark.parametrize(
    ("device", "toolkit", "archs", "extensions"),
    [
        ("cpu", None, None, {C}),
        ("xpu", None, None, {C}),
        ("rocm", "6.4", None, {C, MOE, CUMEM, ROCM}),
        ("rocm", "6.4", "gfx1100", {C, CUMEM}),
        ("cuda", "12.9", None, {C, MOE, CUMEM, FA2, FA3, MLA}),
        ("cuda", "13.0", None, {C, MOE, CUMEM, FA2, FA3, MLA}),
        ("cuda", None, None, {C, MOE, CUMEM, FA2, FA3, MLA}),
        # FlashAttention 2: an architecture >= 8.0 in the list
        ("cuda", "12.9", "7.5", {C, MOE, CUMEM}),
        ("cuda", "12.9", "7.5;8.0", {C, MOE, CUMEM, FA2}),
        ("cuda", "12.9", "7.5;8.9+PTX", {C, MOE, CUMEM, FA2}),
        ("cuda", "12.9", "12.0f", {C, MOE, CUMEM, FA2}),
        # FlashAttention 3 and FlashMLA: 9.0a in the list and CUDA >= 12.3
        ("cuda", "12.3", "9.0a", {C, MOE, CUMEM, FA2, FA3, MLA}),
        ("cuda", "12.3", "9.0a+PTX", {C, MOE, CUMEM, FA2, FA3, MLA}),
        ("cuda", "12.2", "9.0a", {C, MOE, CUMEM, FA2}),
        ("cuda", "12.9", "9.0", {C, MOE, CUMEM, FA2}),
        ("cuda", "12.9", "10.0f", {C, MOE, CUMEM, FA2}),
        # the default list of the oldest toolkit has no 9.0a
        ("cuda", "11.8", None, {C, MOE, CUMEM, FA2}),
    ],
)
def test_extensions(
    table: KernelsTable,
    device: str,
    toolkit: str | None,
    archs: str | None,
    extensions: set[str],
) -> None:
    resolved = plan_resolver.resolve(
        table, device, toolkit_version=Version(toolkit) if toolkit else None, arch_list=archs
    )
    assert {extension.name for extension in resolved.extensions} == extensions
    assert all(extension.kernels for extension in resolved.extensions)


def test_the_allocator_alone_is_not_for_torch(table: KernelsTable, root: Path) -> None:
    assert [e.name for e in plan_resolver.resolve(table, "cuda").extensions if not e.torch] == [
        CUMEM
    ]
    assert {e.name for e in kernels_table.load(root).extensions if not e.torch} == {CUMEM}


def test_flashmla_alone_is_optional(table: KernelsTable) -> None:
    assert [e.name for e in plan_resolver.resolve(table, "cuda").extensions if e.optional] == [MLA]


@pytest.mark.parametrize("device", ["tpu", "empty"])
def test_pure_devices_compile_nothing(table: KernelsTable, device: str) -> None:
    assert plan_resolver.survey(table, device).extensions == ()
    with pytest.raises(NothingToDoError, match=f"device '{device}' compiles nothing"):
        plan_resolver.resolve(table, device)


@pytest.mark.parametrize(
    ("device", "toolkit", "archs", "said"),
    [
        ("cuda", "12.9", "5.0", "no kernel of 'cuda' can be built for 5.0 with CUDA 12.9"),
        ("cuda", None, "7.0", "no kernel of 'cuda' can be built for 7.0:"),
        ("rocm", "6.4", "gfx906", "no kernel of 'rocm' can be built for gfx906 with ROCm 6.4"),
    ],
)
def test_a_list_that_leaves_no_kernel_is_an_error(
    table: KernelsTable, device: str, toolkit: str | None, archs: str, said: str
) -> None:
    # Only host code (the allocator) would be built, which is not a package for a GPU.
    with pytest.raises(ConfigurationError) as caught:
        plan_resolver.resolve(
            table, device, toolkit_version=Version(toolkit) if toolkit else None, arch_list=archs
        )
    assert caught.value.message.startswith(said)
    assert "norm-gpu: written for" in caught.value.message
    assert archs not in (caught.value.expected or "")


@pytest.mark.parametrize(
    ("device", "toolkit"), [("cuda", "11.7"), ("cuda", "10.2"), ("rocm", "5.6.1"), ("rocm", "5.2")]
)
def test_toolkit_floors(table: KernelsTable, device: str, toolkit: str) -> None:
    with pytest.raises(ToolchainError, match=rf"{toolkit} is too old"):
        plan_resolver.resolve(table, device, toolkit_version=Version(toolkit))


@pytest.mark.parametrize(("device", "toolkit"), [("cuda", "11.8"), ("rocm", "5.7")])
def test_the_floor_itself_is_enough(table: KernelsTable, device: str, toolkit: str) -> None:
    assert plan_resolver.resolve(table, device, toolkit_version=Version(toolkit)).extensions


CONTRACT = {
    C: (("cuda", "rocm", "cpu", "xpu"), None, None),
    MOE: (("cuda", "rocm"), None, None),
    CUMEM: (("cuda", "rocm"), None, None),
    ROCM: (("rocm",), None, None),
    FA2: (("cuda",), ">=8.0", None),
    FA3: (("cuda",), "9.0a", "12.3"),
    MLA: (("cuda",), "9.0a", "12.3"),
    "vllm._C_stable_libtorch": (("cuda",), None, None),
    "vllm._moe_C_stable_libtorch": (("cuda",), None, None),
}


@pytest.mark.parametrize("tree", ["sample", "project"])
def test_tables_declare_extensions_as_the_contract_does(root: Path, tree: str) -> None:
    found = kernels_table.load(root if tree == "project" else SAMPLE)
    for extension in found.extensions:
        devices, arch, toolkit = CONTRACT[extension.name]
        assert extension.devices == devices
        assert extension.needs_arch.get("cuda") == arch
        assert extension.min_toolkit.get("cuda") == (toolkit and Version(toolkit))
        mine = [kernel for kernel in found.kernels if kernel.extension == extension.name]
        assert all(kernel.optional for kernel in mine) == (extension.name == MLA)
