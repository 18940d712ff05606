# SPDX-License-Identifier: Apache-2.0
"""The ops that are measured, and their shapes.

This module does not import torch, because the parent process has none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

BFLOAT16, FLOAT32 = "bfloat16", "float32"
Shape = dict[str, int]


@dataclass(frozen=True)
class Case:
    """An op with one shape.

    Attributes:
        op: name in ``torch.ops``; ``variant`` distinguishes variants of an op.
        dtype: dtype of the floating-point inputs.
        shape: sizes, which the op's workload uses and tables show.
        optional: the library may lack the op; this is reported but is not an error.
    """

    op: str
    dtype: str
    shape: Shape = field(hash=False)
    variant: str = ""
    optional: bool = False

    @property
    def label(self) -> str:
        """The case's name in tables."""
        sizes = " ".join(f"{name} {_short(size)}" for name, size in self.shape.items())
        return " ".join(
            part
            for part in (self.variant, sizes, {BFLOAT16: "bf16", FLOAT32: "f32"}[self.dtype])
            if part
        )

    @property
    def quick(self) -> bool:
        """Whether a quick run includes it: bfloat16, with the sizes in ``QUICK``."""
        return self.dtype == BFLOAT16 and all(
            self.shape.get(name, size) == size for name, size in QUICK.items()
        )


#: Sizes of a quick run, for shapes that have them.
QUICK = {"tokens": 2048, "hidden": 4096, "context": 4096}


def _short(size: int) -> str:
    return f"{size // 1024}k" if size >= 4096 and size % 1024 == 0 else str(size)  # noqa: PLR2004 - 1024 and 2048 are clearer as numbers


@dataclass(frozen=True)
class Op:
    """An op and its shapes."""

    name: str
    shapes: tuple[Shape, ...]
    dtypes: tuple[str, ...] = (BFLOAT16, FLOAT32)
    variant: str = ""
    optional: bool = False


TOKENS = (1, 16, 256, 2048)
#: Activations between the layers of a model: all token counts with one hidden size, the smallest
#: and the largest with a larger one.
ROWS = (
    *({"tokens": t, "hidden": 4096} for t in TOKENS),
    {"tokens": 1, "hidden": 8192},
    {"tokens": 2048, "hidden": 8192},
)
#: For ops on all heads of a token: 32 query heads, 8 heads of keys and values, 128 elements each.
HEADS = tuple({"tokens": t} for t in TOKENS)
#: Sequences and context lengths of a decode step.
DECODE = tuple({"batch": b, "context": c} for b in (1, 16) for c in (1024, 4096, 8192))
PREFILL = (
    {"tokens": 256, "context": 256},
    {"tokens": 2048, "context": 2048},
    {"tokens": 256, "context": 4096},
)
GEMM = (
    *({"tokens": t, "hidden": 4096, "out": 4096} for t in TOKENS),
    {"tokens": 1, "hidden": 8192, "out": 8192},
    {"tokens": 16, "hidden": 8192, "out": 8192},
)
#: The largest weight that upstream's engine packs into a tensor.
ROUTER = tuple({"tokens": t, "hidden": 4096, "out": 128} for t in TOKENS)
#: Tokens of requests that are computed from their beginning.
BATCHES = ({"batch": 1, "context": 4096}, {"batch": 16, "context": 1024})
LOGITS = tuple({"batch": b, "vocabulary": 128256} for b in (1, 16, 256))

ACTIVATIONS = (
    "silu_and_mul",
    "mul_and_silu",
    "silu_and_mul_with_clamp",
    "gelu_and_mul",
    "gelu_tanh_and_mul",
    "gelu_tanh",
    "gelu_new",
    "gelu_fast",
    "gelu_quick",
    "relu_squared",
    "fatrelu_and_mul",
    "swigluoai_and_mul",
    "silu_and_mul_quant",
)
NORMS = (
    "rms_norm",
    "fused_add_rms_norm",
    "rms_norm_static_fp8_quant",
    "fused_add_rms_norm_static_fp8_quant",
    "rms_norm_dynamic_per_token_quant",
)
QUANTS = (
    "static_scaled_fp8_quant",
    "dynamic_scaled_fp8_quant",
    "dynamic_per_token_scaled_fp8_quant",
    "static_scaled_int8_quant",
    "dynamic_scaled_int8_quant",
    "per_token_group_fp8_quant",
    "per_token_group_quant_int8",
)

OPS = (
    *(Op(name, ROWS) for name in (*ACTIVATIONS, *NORMS)),
    Op("rotary_embedding", HEADS, variant="neox"),
    Op("rotary_embedding", HEADS, variant="interleaved"),
    Op("fused_qk_norm_rope", HEADS),
    *(Op(name, ROWS) for name in QUANTS),
    Op("dynamic_scaled_int8_quant", ROWS[:4], variant="azp"),
    Op("onednn_mm", GEMM),
    Op("onednn_scaled_mm", GEMM),
    Op("reshape_and_cache", HEADS),
    Op("reshape_and_cache_flash", HEADS),
    Op("concat_and_cache_mla", HEADS),
    Op("gather_and_maybe_dequant_cache", HEADS[2:]),
    Op("cp_gather_cache", HEADS[2:]),
    Op("swap_blocks", ({"blocks": 256},)),
    Op("swap_blocks_batch", ({"blocks": 256},)),
    Op("convert_fp8", ({"blocks": 256},)),
    Op("cpu_attn_reshape_and_cache", HEADS),
    Op("get_scheduler_metadata", ({"batch": 16, "context": 4096},)),
    Op("cpu_attention_with_kv_cache", DECODE[:-1], variant="decode"),
    Op("cpu_attention_with_kv_cache", DECODE[-1:], (BFLOAT16,), variant="decode"),
    Op("cpu_attention_with_kv_cache", PREFILL, variant="prefill"),
    Op(
        "mla_decode_kvcache",
        tuple({"batch": b, "context": c} for b in (1, 16) for c in (1024, 4096)),
    ),
    Op("merge_attn_states", HEADS),
    Op("topk_softmax", HEADS),
    Op("topk_sigmoid", HEADS),
    Op("grouped_topk", HEADS, (FLOAT32,)),
    Op("moe_align_block_size", HEADS, (FLOAT32,)),
    Op("batched_moe_align_block_size", HEADS[2:], (FLOAT32,)),
    Op("moe_sum", HEADS),
    Op("cpu_fused_moe", HEADS),
    Op("greedy_argmax", LOGITS, (FLOAT32,)),
    Op("fused_gumbel_argmax", LOGITS, (FLOAT32,)),
    Op("weight_packed_linear", ROUTER, (BFLOAT16,)),
    Op("compute_slot_mapping_kernel_impl", BATCHES, (FLOAT32,)),
    Op("sample_recovered_tokens_kernel_impl", LOGITS[:2], (FLOAT32,)),
)

#: Ops of the engine that are not timed, with the reason.
NOT_TIMED = {
    "init_cpu_memory_env": "is called once, and asks the operating system to move memory",
    "convert_weight_packed": "is called once for each weight",
    "rejection_greedy_sample_kernel_impl": "reads some numbers for each request",
    "rejection_random_sample_kernel_impl": "reads some numbers for each request",
    "expand_kernel_impl": "copies some numbers for each request",
}


def select(only: list[str], *, quick: bool, ops: tuple[Op, ...] = OPS) -> list[Case]:
    """The cases of a run. ``only`` names the ops; empty means all.

    Raises:
        ValueError: an op is unknown.
    """
    unknown = set(only) - {op.name for op in ops}
    if unknown:
        raise ValueError(
            f"no such op: {', '.join(sorted(unknown))}; known ops: "
            f"{', '.join(sorted({op.name for op in ops}))}"
        )
    wanted = [op for op in ops if not only or op.name in only]
    cases = [
        Case(op.name, dtype, shape, op.variant, op.optional)
        for op in wanted
        for shape in op.shapes
        for dtype in op.dtypes
    ]
    if not quick:
        return cases
    chosen = []
    for op in wanted:
        own = [case for case in cases if case.op == op.name and case.variant == op.variant]
        chosen += [case for case in own if case.quick] or own[:1]
    return list(dict.fromkeys(chosen))
