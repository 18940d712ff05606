# SPDX-License-Identifier: Apache-2.0
"""Batches for attention over a paged cache, and a plain softmax in float64 as reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class Case:
    """Parameters of one call. ``lengths`` are (new tokens, all tokens) of each request."""

    lengths: tuple[tuple[int, int], ...] = ((1, 1), (5, 40), (1, 133), (7, 7), (2, 300))
    heads: tuple[int, int] = (4, 2)
    head_size: int = 64
    block_size: int = 16
    causal: bool = True
    dynamic_causal: tuple[int, ...] | None = None
    window: int = -1
    softcap: float = 0.0
    alibi: bool = False
    sinks: bool = False
    split: bool = True
    dtype: torch.dtype = torch.float32
    isa: str = "vec"

    @property
    def scale(self) -> float:
        return 1 / math.sqrt(self.head_size)


class Batch:
    """Random queries, keys and values of a case; the op fills the cache."""

    def __init__(self, ops: Any, case: Case) -> None:
        self.ops, self.case = ops, case
        q_heads, kv_heads = case.heads
        self.new, self.lens = [q for q, _ in case.lengths], [kv for _, kv in case.lengths]
        self.query = torch.randn(sum(self.new), q_heads, case.head_size).to(case.dtype)
        self.keys = [torch.randn(kv, kv_heads, case.head_size).to(case.dtype) for kv in self.lens]
        self.values = [torch.randn(kv, kv_heads, case.head_size).to(case.dtype) for kv in self.lens]
        self.query_start_loc = torch.tensor([0, *self.new], dtype=torch.int32).cumsum(
            0, dtype=torch.int32
        )
        self.seq_lens = torch.tensor(self.lens, dtype=torch.int32)
        needed = [-(-kv // case.block_size) for kv in self.lens]
        self.blocks = sum(needed) + 2
        order = torch.randperm(self.blocks, dtype=torch.int32)
        # Entries that no token needs are not valid blocks.
        self.table = torch.full((len(needed), max(needed, default=0) + 1), -7, dtype=torch.int32)
        slots = []
        for row, count in enumerate(needed):
            self.table[row, :count], order = order[:count], order[count:]
            positions = torch.arange(self.lens[row])
            slots.append(
                self.table[row, positions // case.block_size].long() * case.block_size
                + positions % case.block_size
            )
        self.slots = torch.cat(slots)
        self.slopes = torch.rand(q_heads) if case.alibi else None
        self.sinks = torch.randn(q_heads) * 2 if case.sinks else None
        self.dynamic_causal = (
            None
            if case.dynamic_causal is None
            else torch.tensor(case.dynamic_causal, dtype=torch.int32)
        )
        # Memory without a token is NaN.
        memory = torch.full(
            (self.blocks, kv_heads, 2 * case.block_size, case.head_size), math.nan, dtype=case.dtype
        )
        self.key_cache, self.value_cache = memory.chunk(2, dim=2)
        ops.cpu_attn_reshape_and_cache(
            torch.cat(self.keys),
            torch.cat(self.values),
            self.key_cache,
            self.value_cache,
            self.slots,
            case.isa,
        )

    def metadata(self) -> torch.Tensor:
        case = self.case
        made: torch.Tensor = self.ops.get_scheduler_metadata(
            len(self.new),
            *case.heads,
            case.head_size,
            self.seq_lens,
            case.dtype,
            self.query_start_loc,
            case.causal,
            case.window,
            case.isa,
            case.split,
            self.dynamic_causal,
        )
        return made

    def arguments(self) -> dict[str, Any]:
        case = self.case
        return {
            "query": self.query,
            "key_cache": self.key_cache,
            "value_cache": self.value_cache,
            "output": torch.full_like(self.query, math.nan),
            "query_start_loc": self.query_start_loc,
            "seq_lens": self.seq_lens,
            "scale": case.scale,
            "causal": case.causal,
            "alibi_slopes": self.slopes,
            "sliding_window_size": case.window,
            "block_table": self.table,
            "softcap": case.softcap,
            "scheduler_metadata": self.metadata(),
            "s_aux": self.sinks,
            "dynamic_causal": self.dynamic_causal,
        }

    def run(self, **changed: Any) -> torch.Tensor:
        arguments = self.arguments() | changed
        self.ops.cpu_attention_with_kv_cache(**arguments)
        output: torch.Tensor = arguments["output"]
        return output

    def reference(self) -> torch.Tensor:
        case = self.case
        group = case.heads[0] // case.heads[1]
        causal = case.dynamic_causal or [int(case.causal)] * len(self.new)
        results = []
        for i, q in enumerate(self.query.double().split(self.new)):
            k, v = (
                t.double().repeat_interleave(group, dim=1) for t in (self.keys[i], self.values[i])
            )
            scores = torch.einsum("qhd,khd->hqk", q, k) * case.scale
            if case.softcap:
                scores = case.softcap * torch.tanh(scores / case.softcap)
            position = torch.arange(self.new[i])[:, None] + self.lens[i] - self.new[i]
            distance = torch.arange(self.lens[i])[None] - position
            if self.slopes is not None:
                scores = scores + self.slopes.double()[:, None, None] * distance
            hidden = torch.zeros_like(distance, dtype=torch.bool)
            if causal[i]:
                hidden |= distance > 0
            if case.window > 0:
                hidden |= distance.abs() >= case.window
            scores = scores.masked_fill(hidden, -math.inf)
            if self.sinks is not None:
                sink = self.sinks.double()[:, None, None].expand(-1, self.new[i], 1)
                scores = torch.cat((scores, sink), dim=-1)
            # A token that sees nothing gets zeros.
            weights = scores.softmax(-1).nan_to_num(0.0)[..., : self.lens[i]]
            results.append(torch.einsum("hqk,khd->qhd", weights, v))
        return torch.cat(results)


#: Instruction sets that multiply bfloat16. Attention then rounds the weights of the softmax.
MULTIPLY_BFLOAT16 = ("avx3_zen4", "avx3_spr", "avx10_2")
TOLERANCE = {
    torch.float32: (1e-5, 5e-6),
    torch.bfloat16: (2**-8, 1e-5),
    torch.float16: (2**-10, 1e-5),
}


def compare(
    got: torch.Tensor, want: torch.Tensor, more: float = 0.0, *, equal_nan: bool = False
) -> None:
    """Compare with the reference in float64.

    The relative error comes from rounding the output, the absolute error from weighted sums of
    values of size one. ``more`` is absolute error beyond that.
    """
    relative, absolute = TOLERANCE[got.dtype]
    if got.dtype == torch.bfloat16 and _get_isa() in MULTIPLY_BFLOAT16:
        relative, absolute = 2**-7, 2**-8
    torch.testing.assert_close(
        got.double(), want, rtol=relative, atol=absolute + more, equal_nan=equal_nan
    )


def _get_isa() -> str:
    """Return the instruction set of the CPU's ops; "" if the ops are those of a GPU."""
    return str(torch.ops._C.cpu_isa()) if hasattr(torch.ops._C, "cpu_isa") else ""
