# SPDX-License-Identifier: Apache-2.0
"""Arguments of ROCm's paged attention and a reference, for the tests of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from vllm._kernels import ops

#: Relative to the largest value: weights, the results of partitions and the result are rounded.
ROUNDING = {torch.bfloat16: 2**-7, torch.float16: 2**-10}
NAMES = {torch.float8_e4m3fn: "fp8", torch.float8_e4m3fnuz: "fp8_e4m3"}


def expanded(heads: torch.Tensor, count: int) -> torch.Tensor:
    return heads.repeat_interleave(count // heads.shape[0], 0)


@dataclass
class Case:
    """Arguments of the op, and the numbers that they represent.

    ``keys`` and ``values`` are ``[sequences, kv_heads, length, head_size]``, as the op is to
    understand them.
    """

    lengths: tuple[int, ...]
    dtype: torch.dtype = torch.bfloat16
    heads: int = 8
    kv_heads: int = 2
    size: int = 64
    block: int = 16
    code: torch.dtype | None = None
    alibi: bool = False
    interleaved: bool = False
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sequences, longest = len(self.lengths), max(*self.lengths, 1)
        columns = -(-longest // self.block)
        blocks = sequences * columns + 2
        self.scale = self.size**-0.5
        self.query = torch.randn(sequences, self.heads, self.size).to(self.dtype)
        stored = self.code or self.dtype
        shape = (blocks, self.kv_heads, self.block, self.size)
        self.key_scale, self.value_scale = (0.5, 2.0) if self.code else (1.0, 1.0)
        rows = [torch.randn(shape).to(stored) for _ in range(2)]
        self.table = torch.randperm(blocks)[: sequences * columns].view(sequences, columns).int()
        self.logical = [self.gather(row) for row in rows]
        # Slots that no sequence has written yet are NaN.
        written = torch.zeros(blocks, self.block, dtype=torch.bool)
        for sequence, length in enumerate(self.lengths):
            places = torch.arange(length)
            written[self.table[sequence, places // self.block].long(), places % self.block] = True
        hidden = ~written[:, None, :, None].expand(shape)
        rows = [row.float().masked_fill(hidden, math.nan).to(stored) for row in rows]
        x = 16 // stored.itemsize
        keys = rows[0].view(torch.uint8 if self.code else stored)
        values = rows[1].view(torch.uint8 if self.code else stored)
        self.key_cache = (
            keys.view(blocks, self.kv_heads, self.block, self.size // x, x)
            .transpose(2, 3)
            .contiguous()
            .view(stored)
        )
        if self.interleaved:
            values = values.view(blocks, self.kv_heads, self.block // x, x, self.size)
            values = values.transpose(3, 4)
        else:
            values = values.transpose(2, 3)
        self.value_cache = values.contiguous().view(stored)
        partitions = -(-longest // 256)
        self.sums = torch.full((sequences, self.heads, partitions), math.nan)
        self.maxima = torch.full_like(self.sums, math.nan)
        self.partial = torch.full((*self.sums.shape, self.size), math.nan).to(self.dtype)
        self.out = torch.full_like(self.query, math.nan)
        self.slopes = 0.1 * torch.rand(self.heads) if self.alibi else None

    def gather(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """Of each sequence, ``[kv_heads, length, head_size]`` in float64, without the scale."""
        found = []
        for sequence, length in enumerate(self.lengths):
            blocks = rows.double()[self.table[sequence].long()].transpose(0, 1)
            found.append(blocks.flatten(1, 2)[:, :length])
        return found

    def set_scores(self, scores: torch.Tensor) -> None:
        """Make ``scores[s, k]`` that of key k of sequence s, bit for bit."""
        self.query.zero_()
        self.query[..., 0] = 1.0
        self.scale = 1.0
        places = torch.arange(scores.shape[1])
        blocks = self.table[:, places // self.block].long()
        keys = self.key_cache.view(torch.int16)
        keys[blocks, :, 0, places % self.block, 0] = scores.view(torch.int16)[..., None]
        for row, rows in zip(scores.double(), self.logical[0], strict=True):
            rows[..., 0] = row

    def arguments(self) -> dict[str, Any]:
        given = {
            "out": self.out,
            "exp_sum": self.sums,
            "max_logits": self.maxima,
            "tmp_out": self.partial,
            "query": self.query,
            "key_cache": self.key_cache,
            "value_cache": self.value_cache,
            "num_kv_heads": self.kv_heads,
            "scale": self.scale,
            "block_tables": self.table,
            "seq_lens": torch.tensor(self.lengths, dtype=torch.int32),
            "query_start_loc": None,
            "block_size": self.block,
            "max_seq_len": max(*self.lengths, 1),
            "alibi_slopes": self.slopes,
            "kv_cache_dtype": NAMES[self.code] if self.code else "auto",
            "k_scale": torch.tensor(self.key_scale),
            "v_scale": torch.tensor([self.value_scale]),
            "use_interleaved_v_cache": self.interleaved,
        }
        return given | self.more

    def run(self) -> torch.Tensor:
        ops.paged_attention_rocm(**self.arguments())
        return self.arguments()["out"]

    def reference(self) -> torch.Tensor:
        results = []
        for sequence, length in enumerate(self.lengths):
            keys, values = (expanded(rows[sequence], self.heads) for rows in self.logical)
            query = self.query[sequence].double()
            scores = (keys @ query[..., None])[..., 0] * self.key_scale * self.scale
            if self.slopes is not None:
                distances = torch.arange(length) - (length - 1)
                scores += self.slopes.double()[:, None] * distances
            # Without a score above -infinity, weights are zeros.
            weights = torch.where(
                (scores == -math.inf).all(-1, keepdim=True), 0.0, scores.softmax(-1)
            )
            results.append((weights[:, None] @ values)[:, 0] * self.value_scale)
        return torch.stack(results)

    def check(self) -> None:
        got, want = self.run(), self.reference()
        finite = want.nan_to_num(0.0)
        largest = finite.abs().max().item() if finite.numel() else 0.0
        torch.testing.assert_close(
            got.double(),
            want,
            rtol=ROUNDING[self.dtype],
            atol=ROUNDING[self.dtype] * max(largest, 1e-3) / 2,
            equal_nan=True,
        )
