# SPDX-License-Identifier: Apache-2.0
"""Official wheels for imaginary machines, and their audit."""

from __future__ import annotations

import os
import platform
import sysconfig
from typing import TYPE_CHECKING, Any

from foreign_files import Official, compiled
from packaging.version import Version

from vllm_build.kernels import kernel_choice, kernels_table, op_table, plan_resolver
from vllm_build.reuse.foreign import foreign_reuse
from vllm_build.reuse.records.fitness import Machine

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.kernels.build_plan import Plan
    from vllm_build.reuse.net.reuse_context import Context

PLATFORM = f"linux_{platform.machine()}"
AVX2 = frozenset({"avx2"})
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
CPU = Machine("cpu", None, Version("2.13.0+cpu"), sysconfig.get_platform(), "abi3", AVX2)
SCHEMA = "_C::f(Tensor! out, Tensor input, float alpha=1.) -> ()"


def cpu_plan(root: Path) -> Plan:
    return plan_resolver.survey(kernels_table.load(root), "cpu")


def cuda_plan(root: Path, release: str = "13.0") -> Plan:
    choice = kernel_choice.Choice(flash_attention_set="full")
    return plan_resolver.survey(
        kernels_table.load(root),
        "cuda",
        toolkit_version=Version(release),
        arch_list="9.0a",
        choice=choice,
    )


def listed(root: Path, what: Plan) -> dict[str, tuple[str, list[str]]]:
    """Every op of the planned kernels: name -> schema and dispatch keys."""
    found: dict[str, tuple[str, list[str]]] = {}
    for key, schemas in op_table.of_plan(op_table.load(root), what).items():
        for text in schemas:
            found.setdefault(text.partition("(")[0], (text, []))[1].append(key)
    return found


def official(tmp_path: Path, **changes: Any) -> Path:
    """Write a wheel with one valid library for the CPU, or with ``changes``."""
    libraries = changes.pop("libraries", None) or {
        "vllm/_C_AVX2.abi3.so": compiled(tmp_path / "cc")
    }
    return Official(libraries, **{"platform": PLATFORM, **changes}).write(tmp_path)


def audit(
    ctx: Context, root: Path, wheel: Path, machine: Machine = CPU, **options: Any
) -> foreign_reuse.Audited:
    what = cpu_plan(root) if machine.device == "cpu" else cuda_plan(root)
    return foreign_reuse.audit(
        ctx, root, what, machine, str(wheel), inherited=os.environ, **options
    )


def verdicts(found: foreign_reuse.Audited, check: str) -> list[str]:
    return [row.verdict for row in found.audit.rows if row.check == check]
