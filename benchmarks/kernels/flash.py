# SPDX-License-Identifier: Apache-2.0
"""FlashAttention 2 and 3 over packed and paged keys, and FlashMLA.

The heads are those of ``attention``. PyTorch uses SDPA on contiguous keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kernels.attention import HEAD, HEADS, KV_HEADS, LATENT, NOT_PAGED, ROPE, batch_of, flops, sdpa
from kernels.workload import Workload, builds, op, rand, size

if TYPE_CHECKING:
    from collections.abc import Callable

    from kernels.cases import Case

#: Latent attention with all of DeepSeek's heads, which share one key, and FlashMLA's page size.
MLA_HEADS, MLA_PAGE = 128, 64
SCALE = HEAD**-0.5


class Batch:
    """Packed queries, keys and values of sequences.

    If the case has a page size, keys and values are also stored in pages.
    """

    def __init__(self, case: Case, dtype: torch.dtype) -> None:
        self.lengths, self.contexts = batch_of(case)
        self.sequences, self.context, self.queries = (
            len(self.lengths),
            self.contexts[0],
            self.lengths[0],
        )
        self.query = rand(sum(self.lengths), HEADS, HEAD, dtype=dtype)
        self.key, self.value = (
            rand(sum(self.contexts), KV_HEADS, HEAD, dtype=dtype) for _ in range(2)
        )
        self.out = torch.empty_like(self.query)
        self.starts = torch.tensor([0, *self.lengths]).cumsum(0).int()
        self.key_starts = torch.tensor([0, *self.contexts]).cumsum(0).int()
        self.used = torch.tensor(self.contexts, dtype=torch.int32)
        self.page = case.shape.get("page", 0)
        self.table: torch.Tensor | None = None
        self.caches = (self.key, self.value)
        if self.page:
            self.table = (
                torch.randperm(sum(self.contexts) // self.page).int().view(self.sequences, -1)
            )
            self.caches = (self._paged(self.key), self._paged(self.value))

    def _paged(self, rows: torch.Tensor) -> torch.Tensor:
        """Store the rows in pages, in the order of the table."""
        assert self.table is not None  # noqa: S101 - set by the caller
        pages = torch.empty(self.table.numel(), self.page, KV_HEADS, HEAD, dtype=rows.dtype)
        pages[self.table.flatten().long()] = rows.view(pages.shape)
        return pages

    def workload(self, bind: Callable[[], Any]) -> Workload:
        """The workload of a call that writes ``out``."""
        return Workload(
            bind,
            sdpa(self.lengths, self.context),
            (self.query, self.key, self.value),
            (self.out,),
            size(self.query, self.key, self.value),
            size(self.out),
            flops=flops(self.lengths, self.contexts),
            no_compile=NOT_PAGED,
            cold=True,
            slack=4.0,  # with 16 bits, implementations round the probabilities differently
            keep=list(self.caches),
        )


@builds("_vllm_fa2_C.varlen_fwd")
def _varlen(name: str, case: Case, dtype: torch.dtype) -> Workload:
    b = Batch(case, dtype)
    # With a table, `used` has the lengths, but the op requires the other argument too.
    used = b.used if b.page else None
    first = (
        b.query,
        *b.caches,
        b.out,
        b.starts,
        b.key_starts,
        used,
        None,
        b.table,
        None,
        b.queries,
        b.context,
    )
    arguments = (*first, 0.0, SCALE, False, True, -1, -1, 0.0, False, 0, None)

    def bind() -> Any:
        function = op(name)
        return lambda: function(*arguments)

    return b.workload(bind)


@builds("_vllm_fa2_C.fwd_kvcache")
def _kvcache(name: str, case: Case, dtype: torch.dtype) -> Workload:
    b = Batch(case, dtype)
    query, out = (x.view(b.sequences, b.queries, HEADS, HEAD) for x in (b.query, b.out))
    first = (query, *b.caches, None, None, b.used, None, None, None, None, b.table, None, out)
    arguments = (*first, SCALE, True, -1, -1, 0.0, True, 0)

    def bind() -> Any:
        function = op(name)
        return lambda: function(*arguments)

    return b.workload(bind)


@builds("_vllm_fa3_C.fwd")
def _fwd(name: str, case: Case, dtype: torch.dtype) -> Workload:
    b = Batch(case, dtype)
    keys = (None, None, b.used) if b.page else (b.key_starts, None, None)
    lengths = (b.starts, keys[0], None, keys[1], keys[2], b.queries, b.context)
    arguments = (
        *(b.query, *b.caches, None, None, None, b.out),
        *lengths,
        *(
            b.table,
            None,
            None,
            None,
            None,
            None,
            None,
            None,
            None,
        ),  # no indices, padding, rotation and scales
        *(SCALE, True, -1, -1, 0.0, True, None, 0, None, 0, None, 1, 0, None),
    )

    def bind() -> Any:
        function = op(name)
        return lambda: function(*arguments)

    return b.workload(bind)


@builds("_vllm_fa3_C.get_scheduler_metadata")
def _schedule(name: str, case: Case, dtype: torch.dtype) -> Workload:
    lengths, contexts = batch_of(case)
    used = torch.tensor(contexts, dtype=torch.int32)
    starts = torch.tensor([0, *lengths]).cumsum(0).int()
    sizes = (len(lengths), lengths[0], contexts[0], HEADS, KV_HEADS, HEAD, HEAD, dtype)
    arguments = (
        *sizes,
        used,
        starts,
        None,
        None,
        None,
        None,
        16,
        0,
        True,
        -1,
        -1,
        False,
        0,
        None,
        0,
    )

    def bind() -> Any:
        function = op(name)
        return lambda: function(*arguments)

    return Workload(bind, lambda _: (), (used,), no_torch="the result is private to the library")


@builds("_flashmla_C.dense_decode_fwd")
def _mla(name: str, case: Case, dtype: torch.dtype) -> Workload:
    batch, context, width = case.shape["batch"], case.shape["context"], LATENT + ROPE
    query = rand(batch, 1, MLA_HEADS, width, dtype=dtype)
    cache = rand(batch * context // MLA_PAGE, MLA_PAGE, 1, width, dtype=dtype)
    table = torch.randperm(len(cache)).int().view(batch, -1)
    used = torch.full((batch,), context, dtype=torch.int32)
    first = (query, cache, LATENT, used, table, width**-0.5, True)

    def bind() -> Any:
        function = op(name)
        # The plan of the first layer is used for all layers.
        _, _, plan, splits = function(*first, None, None, None)
        return lambda: function(*first, plan, splits, None)[0]

    def in_torch(
        query: torch.Tensor, cache: torch.Tensor, table: torch.Tensor
    ) -> tuple[torch.Tensor]:
        keys = cache[table.flatten()].view(batch, context, width)
        scores = (
            torch.matmul(query.view(batch, MLA_HEADS, width), keys.transpose(1, 2)).float()
            * width**-0.5
        )
        return (
            torch.matmul(scores.softmax(-1).to(dtype), keys[..., :LATENT]).view(
                batch, 1, MLA_HEADS, LATENT
            ),
        )

    return Workload(
        bind,
        in_torch,
        (query, cache, table),
        reads=size(query, cache),
        writes=batch * MLA_HEADS * LATENT * dtype.itemsize,
        flops=2.0 * batch * context * MLA_HEADS * (width + LATENT),
        no_compile=NOT_PAGED,
        cold=True,
        slack=4.0,
    )
