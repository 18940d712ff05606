# SPDX-License-Identifier: Apache-2.0
"""Wrong arguments of FlashAttention 2 and 3.

Needs a GPU for the tensors, and the libraries: `make gpu-tests`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vllm._kernels import flash_attn, loader

pytestmark = pytest.mark.gpu
HOPPER = 3


@pytest.fixture(params=[2, HOPPER], ids=["version 2", "version 3"])
def version(request: pytest.FixtureRequest) -> int:
    chosen: int = request.param
    reason = flash_attn.fa_version_unsupported_reason(chosen)
    if reason is not None:
        pytest.skip(reason)
    return chosen


def wrong(
    version: int, q: torch.Tensor, k: torch.Tensor, lengths: torch.Tensor, table: torch.Tensor
) -> list[tuple[dict[str, Any], str]]:
    both = [
        ({"q": q.float()}, "q is of dtype Float, expected BFloat16 or Half"),
        ({"v": k.half()}, "v is of dtype Half, expected BFloat16"),
        ({"k": k[:, :, :, :56], "v": k[:, :, :, :56]}, "the head size of q, 64"),
        ({"q": torch.randn(2, 4, 60).bfloat16()}, "rows that begin at multiples of 16 bytes"),
        ({"seqused_k": lengths[:1]}, "seqused_k has shape"),
        ({"out": torch.empty(2, 4, 64)}, "out is of dtype Float"),
        ({"q": q.cpu()}, "q is not on the GPU"),
    ]
    if version == HOPPER:
        return [
            *both,
            ({"q": torch.randn(2, 3, 64).bfloat16()}, "divisor of the 3 heads of q"),
            (
                {"q": q[..., :60], "k": k[..., :60], "v": k[..., :60]},
                "head size is 60, expected a multiple of 8",
            ),
            ({"block_table": table.long()}, "page_table is of dtype Long, expected Int"),
            ({"block_table": table[:1]}, "keys have 1 sequences, expected the number of q, 2"),
            ({"num_splits": 257}, "num_splits is 257, expected at most 256"),
            (
                {"scheduler_metadata": lengths},
                r"scheduler_metadata has shape \[2\], expected \[13\]",
            ),
        ]
    return [
        *both,
        ({"k": k[:, :10], "v": k[:, :10]}, "pages of 10 rows, expected a multiple of 16"),
        ({"q": torch.randn(2, 3, 64).bfloat16()}, "divides the 3 heads of q"),
        (
            {"q": q[..., :60], "k": k[..., :60], "v": k[..., :60]},
            "heads of size 60, expected a multiple of 8",
        ),
        ({"block_table": table.long()}, "block_table is of dtype Long, expected Int"),
        ({"block_table": table[:1]}, r"expected \[2, pages of the longest sequence\]"),
        ({"num_splits": 129}, "num_splits is 129, expected at most 128"),
    ]


def test_wrong_arguments(version: int) -> None:
    q, k = torch.randn(2, 4, 64).bfloat16(), torch.randn(4, 16, 2, 64).bfloat16()
    lengths, table = torch.ones(2, dtype=torch.int32), torch.zeros(2, 1, dtype=torch.int32)

    def call(**changed: Any) -> None:
        given = {
            "q": q,
            "k": k,
            "v": k,
            "seqused_k": lengths,
            "block_table": table,
            "max_seqlen_q": 1,
            "max_seqlen_k": 1,
        } | changed
        flash_attn.flash_attn_varlen_func(
            cu_seqlens_q=torch.tensor([0, 1, 2], dtype=torch.int32), fa_version=version, **given
        )

    for changed, words in wrong(version, q, k, lengths, table):
        with pytest.raises(RuntimeError, match=words):
            call(**changed)


@pytest.mark.usefixtures("version")
@pytest.mark.parametrize("version", [HOPPER], indirect=True)
def test_missing_features_are_refused() -> None:
    """The op's error messages; the Python function refuses these arguments earlier."""
    q, k = torch.randn(2, 4, 64).bfloat16(), torch.randn(2, 2, 64).bfloat16()
    starts = torch.tensor([0, 1, 2], dtype=torch.int32)
    op = loader.namespace("_vllm_fa3_C").fwd
    names = [argument.name for argument in op.default._schema.arguments]
    given = dict.fromkeys(names) | {
        "q": q,
        "k": k,
        "v": k,
        "cu_seqlens_q": starts,
        "cu_seqlens_k": starts,
        "softmax_scale": 1.0,
    }
    given |= {
        "max_seqlen_q": 1,
        "max_seqlen_k": 1,
        "is_causal": False,
        "window_size_left": -1,
        "window_size_right": -1,
        "softcap": 0.0,
    }
    given |= {
        "is_rotary_interleaved": False,
        "num_splits": 0,
        "sm_margin": 0,
        "cp_world_size": 1,
        "cp_rank": 0,
    }
    for changed, words in (
        ({"s_aux": q}, "s_aux is given, expected none: the kernels have no attention sinks"),
        ({"q_v": q}, "q_v is given, expected none"),
        ({"cp_world_size": 2}, "cp_world_size is 2"),
        ({"sm_margin": 10000}, "sm_margin is 10000, expected 0 to"),
        ({"v": k[..., :32]}, "kernels for values of another size are not built"),
        ({"max_seqlen_q": None}, "cu_seqlens_q is given without max_seqlen_q"),
        ({"k_new": q}, "k_new or v_new is given alone"),
    ):
        with pytest.raises(RuntimeError, match=words):
            op(*(given | changed).values())
