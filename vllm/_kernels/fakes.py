# SPDX-License-Identifier: Apache-2.0
"""Fake implementations for ``torch.compile``, ``torch.export`` and ``opcheck``.

A fake implementation computes only the shapes and dtypes of an op's results. For an op that only
writes into its arguments, the schema says everything. One implementation here therefore serves
every such op of a library, including those of later releases; without it, torch would run the
kernel itself, on zeros. :data:`RETURNED` lists the implementations of ops that return tensors. Only
the kernels check shapes: a second copy of those checks here would put guards on symbolic shapes and
could disagree with the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def _writes_in_place(*_args: object, **_kwargs: object) -> None:
    """Do nothing: the op only changes the data of its arguments."""


def _token_of_each_row(logits: torch.Tensor, *_args: object) -> torch.Tensor:
    return logits.new_empty((logits.shape[0],), dtype=torch.int64)


def _packed(weight: torch.Tensor) -> torch.Tensor:
    # A header of 64 bytes, and room for panels of 16 columns and rows by 32:
    # csrc/bindings/packed_weight.cc.
    columns, depth = weight.shape
    depth = (depth + 31) // 32 * 32
    return weight.new_empty((64 // weight.element_size() + (columns + 15) // 16 * 16 * depth,))


def _weights_and_experts(
    scores: torch.Tensor, _groups: int, _kept: int, topk: int, *_args: object
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (scores.shape[0], topk)
    return scores.new_empty(shape, dtype=torch.float32), scores.new_empty(shape, dtype=torch.int32)


def _cut_of_each_request(
    num_req: int,
    _heads: int,
    _kv_heads: int,
    _head_dim: int,
    seq_lens: torch.Tensor,
    *_args: object,
    **_kwargs: object,
) -> torch.Tensor:
    # Eight numbers for the batch and four for each request: csrc/bindings/attention.cc.
    return seq_lens.new_empty((8 + 4 * num_req,), dtype=torch.int32)


def _attended_packed(
    q: torch.Tensor, _k: torch.Tensor, _v: torch.Tensor, out: torch.Tensor | None, *_args: object
) -> list[torch.Tensor]:
    lse = q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)
    return [torch.empty_like(q) if out is None else out, lse]


def _attended_caches(q: torch.Tensor, *args: object) -> list[torch.Tensor]:
    out = args[11]
    lse = q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)
    return [out if isinstance(out, torch.Tensor) else torch.empty_like(q), lse]


def _attended_hopper(q: torch.Tensor, *args: object) -> list[torch.Tensor]:
    out, starts = args[5], args[6]
    # Without cu_seqlens_q, the queries are a batch; with it, they are packed. The two empty tensors
    # replace upstream's results for parts of the keys.
    shape = (q.shape[0], q.shape[2], q.shape[1]) if starts is None else (q.shape[1], q.shape[0])
    empty = [q.new_empty((0,), dtype=torch.float32) for _ in range(2)]
    return [
        out if isinstance(out, torch.Tensor) else torch.empty_like(q),
        q.new_empty(shape, dtype=torch.float32),
        *empty,
    ]


def _divided(batch: int, queries: int, keys: int, *args: Any) -> torch.Tensor:
    # csrc/attention/flash3/schedule.cc: two numbers for each sequence, one more without a window,
    # and one more with any mask.
    lengths, page, (causal, left, right), size = args[5], args[11], args[13:16], args[2]
    left, right = -1 if left >= keys - 1 else left, -1 if right >= queries - 1 else right
    if queries == 1 and left < 0 and right < 0 and not (64 < size <= 128 and page is not None):  # noqa: PLR2004 - same as in schedule.cc
        causal = False
    right = 0 if causal else right
    is_causal = left < 0 and right == 0
    windowed = not is_causal and (left >= 0 or right >= 0)
    numbers: torch.Tensor = lengths.new_empty(
        (-(-batch // 4) * 4 * (2 + (not windowed) + (is_causal or windowed)) + 1,),
        dtype=torch.int32,
    )
    return numbers


def _decoded(q: torch.Tensor, *args: object) -> tuple[torch.Tensor, torch.Tensor, object, object]:
    batch, queries, heads = q.shape[:3]
    head_size_v, parts, splits, out = args[1], args[6], args[7], args[8]
    shape = (batch, queries, heads, head_size_v)
    lse = q.new_empty((batch, heads, queries), dtype=torch.float32)
    if not isinstance(parts, torch.Tensor):
        # The number of parts depends on the device's multiprocessors:
        # csrc/attention/flashmla/plan.cu.
        if not torch.cuda.is_available():
            raise NotImplementedError(
                "the shape of tile_scheduler_metadata is unknown without a GPU: pass "
                "tile_scheduler_metadata and num_splits"
            )
        count = torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count
        parts = q.new_empty(
            (max(count // max(-(-queries * heads // 64), 1), 1), 8), dtype=torch.int32
        )
        splits = q.new_empty((batch + 1,), dtype=torch.int32)
    return (
        out.view(shape) if isinstance(out, torch.Tensor) else q.new_empty(shape),
        lse,
        parts,
        splits,
    )


def _multiplied(weight: torch.Tensor, activations: torch.Tensor, *_args: object) -> torch.Tensor:
    return activations.new_empty((activations.shape[0], weight.shape[0]))


#: Implementations for ops whose schema is not enough, by qualified name. They take the op's
#: arguments and return empty tensors like those that the op returns.
RETURNED: dict[str, Callable[..., object]] = {
    "_C::convert_weight_packed": _packed,
    "_C::fused_gumbel_argmax": _token_of_each_row,
    "_C::get_scheduler_metadata": _cut_of_each_request,
    "_C::greedy_argmax": _token_of_each_row,
    # Changes the process and no tensor.
    "_C::init_cpu_memory_env": _writes_in_place,
    # Writes through addresses, which its schema does not show.
    "_C_cache_ops::swap_blocks_batch": _writes_in_place,
    "_flashmla_C::dense_decode_fwd": _decoded,
    "_moe_C::grouped_topk": _weights_and_experts,
    "_rocm_C::LLMM1": _multiplied,
    "_rocm_C::wvSplitK": _multiplied,
    "_rocm_C::wvSplitK_int4_g": _multiplied,
    "_rocm_C::wvSplitKrc": _multiplied,
    "_vllm_fa2_C::fwd_kvcache": _attended_caches,
    "_vllm_fa2_C::varlen_fwd": _attended_packed,
    "_vllm_fa3_C::fwd": _attended_hopper,
    "_vllm_fa3_C::get_scheduler_metadata": _divided,
}


def _only_mutates(schema: torch.FunctionSchema) -> bool:
    written = any(
        argument.alias_info is not None and argument.alias_info.is_write
        for argument in schema.arguments
    )
    return written and not schema.returns


#: An op with a kernel for one of these dispatch keys needs no fake.
_FILLED = ("Meta", "CompositeImplicitAutograd")
#: A registration lasts as long as its Library object.
_registered: list[torch.library.Library] = []


#: Ops of :data:`RETURNED` whose fakes the engine registers itself; a second one is an error.
ENGINES = frozenset({"_moe_C::grouped_topk", "_rocm_C::wvSplitK_int4_g"})


def register(namespaces: Iterable[str], without: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Register fakes for ops of ``namespaces`` that have none.

    These are the ops that only write into their arguments, and those of :data:`RETURNED`.

    Args:
        namespaces: namespaces of ``torch.ops``.
        without: qualified names of ops to leave out.

    They are registered for the Meta key, where torch looks for them.
    ``torch.library.register_fake`` does the same but also reads the caller's source for each op.
    That takes half a millisecond per op, which was more than half of the time to import the ops.

    Returns:
        The qualified names of the ops that got a fake, sorted.
    """
    libraries = {space: torch.library.Library(space, "FRAGMENT") for space in namespaces}
    _registered.extend(libraries.values())
    done = []
    for name in sorted(torch._C._dispatch_get_all_op_names()):  # noqa: SLF001 - torch has no public list of ops
        space, _, rest = name.partition("::")
        # A library or an earlier import of this module may have registered a fake. An op that is
        # composed of other ops uses theirs.
        if (
            space not in libraries
            or name in without
            or any(
                torch._C._dispatch_has_kernel_for_dispatch_key(name, key)  # noqa: SLF001
                for key in _FILLED
            )
        ):
            continue
        base, _, overload = name.partition(".")
        schema = torch._C._get_schema(base, overload)  # noqa: SLF001 - no public accessor
        fake = RETURNED.get(name, _writes_in_place if _only_mutates(schema) else None)
        if fake is not None:
            libraries[space].impl(rest, fake, "Meta")
            done.append(name)
    return tuple(done)
