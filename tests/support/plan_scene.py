# SPDX-License-Identifier: Apache-2.0
"""Tables of kernels to plan with, and what became of one kernel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vllm_build.kernels import kernels_table, plan_resolver
from vllm_build.kernels.kernel_records import Extension, Kernel, KernelsTable

if TYPE_CHECKING:
    from vllm_build.kernels.build_plan import Decision, Plan


def kernel(
    name: str,
    *devices: str,
    extension: str = "vllm._C",
    definitions: tuple[str, ...] = (),
    libraries: tuple[str, ...] = (),
) -> Kernel:
    """A kernel of one source without GPU code."""
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


SAMPLE = kernels_table.load(Path(__file__).resolve().parents[1] / "data" / "gpu_tree")


def decision(resolved: Plan, name: str) -> Decision:
    """What became of one kernel of the table."""
    (found,) = [d for d in resolved.decisions if d.kernel.name == name]
    return found


def cpu_plan(root: Path) -> Plan:
    """The plan of the tree for CPUs."""
    return plan_resolver.resolve(kernels_table.load(root), "cpu")
