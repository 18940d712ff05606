# SPDX-License-Identifier: Apache-2.0
"""The ops that are measured on a GPU, their shapes, and small shapes for any machine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kernels.cases import ACTIVATIONS, BFLOAT16, FLOAT32, NORMS, QUANTS, Op

if TYPE_CHECKING:
    from kernels.cases import Case, Shape

TOKENS = (1, 64, 512, 2048, 8192)
ROWS = (
    *({"tokens": t, "hidden": 4096} for t in TOKENS),
    {"tokens": 1, "hidden": 8192},
    {"tokens": 8192, "hidden": 8192},
)
HEADS = tuple({"tokens": t} for t in TOKENS)
#: Sequences of a decode step and their contexts; up to a gigabyte of keys and values.
BATCHES = tuple(
    {"batch": b, "context": c} for b in (1, 16, 64) for c in (1024, 4096, 16384) if b * c <= 1 << 18
)
#: Upstream uses pages of 16 tokens; pages of 256 are whole blocks for every kernel.
DECODE = tuple({**shape, "page": page} for page in (16, 256) for shape in BATCHES)
#: Packed queries and keys of one sequence; and a chunk after a long prefix, in pages.
PREFILL = (
    *({"tokens": t, "context": t} for t in (512, 4096, 16384)),
    {"tokens": 2048, "context": 16384, "page": 16},
)
GEMM = tuple(
    {"tokens": t, "hidden": k, "out": n}
    for k, n in ((4096, 4096), (8192, 8192))
    for t in (1, 16, 256, 2048, 8192)
)
LOGITS = tuple({"batch": b, "vocabulary": 128256} for b in (1, 16, 256))
HALF = (BFLOAT16,)

OPS = (
    *(Op(name, ROWS) for name in (*ACTIVATIONS, *NORMS)),
    Op("rms_norm_per_block_quant", ROWS),
    Op("rotary_embedding", HEADS, variant="neox"),
    Op("rotary_embedding", HEADS, variant="interleaved"),
    Op("fused_qk_norm_rope", HEADS),
    *(Op(name, ROWS) for name in QUANTS),
    Op("dynamic_scaled_int8_quant", ROWS[:5], variant="azp"),
    Op("reshape_and_cache", HEADS),
    Op("reshape_and_cache_flash", HEADS),
    Op("concat_and_cache_mla", HEADS),
    Op("indexer_k_quant_and_cache", HEADS, HALF),
    Op("cp_gather_indexer_k_quant_cache", HEADS[2:], HALF),
    Op("gather_and_maybe_dequant_cache", HEADS[2:]),
    Op("cp_gather_cache", HEADS[2:]),
    Op("swap_blocks", ({"blocks": 1024},)),
    Op("swap_blocks_batch", ({"blocks": 1024},)),
    Op("convert_fp8", ({"blocks": 1024},)),
    Op("merge_attn_states", HEADS),
    Op("topk_softmax", HEADS),
    Op("topk_sigmoid", HEADS),
    Op("grouped_topk", HEADS, (FLOAT32,)),
    Op("moe_align_block_size", HEADS, (FLOAT32,)),
    Op("batched_moe_align_block_size", HEADS[2:], (FLOAT32,)),
    Op("moe_sum", HEADS),
    Op("greedy_argmax", LOGITS, (FLOAT32,)),
    Op("fused_gumbel_argmax", LOGITS, (FLOAT32,)),
    # Separate libraries, and products for some architectures only. A package may lack them, which
    # is reported and not a failure.
    Op("cutlass_scaled_mm", GEMM, HALF, variant="fp8", optional=True),
    Op("cutlass_scaled_mm", GEMM, HALF, variant="int8", optional=True),
    Op("_vllm_fa2_C.varlen_fwd", PREFILL, HALF, variant="prefill", optional=True),
    Op("_vllm_fa2_C.varlen_fwd", DECODE, HALF, variant="decode", optional=True),
    Op("_vllm_fa2_C.fwd_kvcache", DECODE, HALF, variant="decode", optional=True),
    Op("_vllm_fa3_C.fwd", PREFILL, HALF, variant="prefill", optional=True),
    Op("_vllm_fa3_C.fwd", DECODE, HALF, variant="decode", optional=True),
    Op("_vllm_fa3_C.get_scheduler_metadata", BATCHES, HALF, optional=True),
    Op("_flashmla_C.dense_decode_fwd", BATCHES, HALF, optional=True),
)

#: GPU ops that are not timed, with the reason.
NOT_TIMED = {
    "_C::cutlass_scaled_mm_azp": (
        "the same products as cutlass_scaled_mm, with more inputs of the epilogue"
    ),
    "_C_custom_ar": "needs several GPUs, each with its own process",
    "_C_cuda_utils": "only queries the driver",
    "_rocm_C": "needs an AMD GPU, and this benchmark compares with a wheel for CUDA",
}

#: Small sizes that every op accepts: whole blocks and groups, and keys for every query.
_TINY = {
    "tokens": 64,
    "hidden": 256,
    "out": 128,
    "batch": 2,
    "context": 128,
    "vocabulary": 999,
    "blocks": 4,
    "page": 64,
}


def tiny(case: Case) -> Case:
    """The same case with small tensors."""
    shape: Shape = {name: min(size, _TINY[name]) for name, size in case.shape.items()}
    return replace(case, shape=shape)
