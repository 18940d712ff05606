# SPDX-License-Identifier: Apache-2.0
"""The schemas of GPU ops equal upstream's, and the build for ROCm has the ops of that for CUDA."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import upstream_schemas

from vllm_build.kernels import kernels_table, op_table, plan_resolver
from vllm_build.kernels.kernel_choice import Choice

if TYPE_CHECKING:
    from pathlib import Path

#: CUDA by nature: products of CUTLASS and NVIDIA's matrix instructions.
CUDA_ALONE = {
    "_C::cutlass_scaled_mm",
    "_C::cutlass_scaled_mm_azp",
    "_C::cutlass_scaled_mm_supports_block_fp8",
    "_C::cutlass_scaled_mm_supports_fp8",
    "_flashmla_C::dense_decode_fwd",
}
ROCM_ALONE = {
    "_rocm_C::LLMM1",
    "_rocm_C::paged_attention",
    "_rocm_C::wvSplitK",
    "_rocm_C::wvSplitKQ",
    "_rocm_C::wvSplitK_int4_g",
    "_rocm_C::wvSplitKrc",
}


def schemas(root: Path, device: str, choice: Choice) -> dict[str, str]:
    """Name -> schema of every op that a build for the device registers for any key."""
    plan = plan_resolver.resolve(kernels_table.load(root), device, choice=choice)
    found = op_table.of_plan(op_table.load(root), plan)
    return {s.partition("(")[0]: s for listed in found.values() for s in listed}


@pytest.mark.parametrize(
    ("device", "choice", "number"),
    [("cuda", Choice("full"), 65), ("rocm", Choice(), 62)],
)
def test_schemas_of_gpu_ops_are_upstreams(
    root: Path, device: str, choice: Choice, number: int
) -> None:
    upstream = upstream_schemas.load()
    found = schemas(root, device, choice)
    assert set(found) >= upstream_schemas.OURS
    compared = {n: s for n, s in found.items() if n not in upstream_schemas.OURS}
    assert {n: upstream_schemas.spelled(s) for n, s in compared.items()} == {
        name: upstream.get(name) for name in compared
    }
    assert len(compared) >= number


def test_rocm_has_every_op_that_is_not_cuda_by_nature(root: Path) -> None:
    cuda, rocm = (set(schemas(root, device, Choice())) for device in ("cuda", "rocm"))
    assert cuda - rocm == CUDA_ALONE
    assert rocm - cuda == ROCM_ALONE


@pytest.mark.parametrize(
    "text", ["Tensor($0! -> )? x", "Tensor(a!)? x", "Tensor!? x"], ids=["torch", "named", "source"]
)
def test_spellings_of_one_schema(text: str) -> None:
    assert upstream_schemas.spelled(f"f({text}, int($12! -> )? y) ") == "f(Tensor!? x, int!? y)"
