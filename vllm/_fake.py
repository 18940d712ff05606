# SPDX-License-Identifier: Apache-2.0
"""Fake implementations: what an op does to shapes and dtypes, for ``torch.compile``, ``torch.export`` and ``opcheck``.

Ops that write into their arguments and return nothing have nothing to compute on fake tensors:
their schema says it all, so the one implementation here serves every such op of a library, those of
later releases too. Without it torch would run the kernel itself, on zeros. Of ops that return
something, :data:`RETURNED` says what. Shapes are checked by the kernels alone; a second copy of
those checks here would put guards on symbolic shapes and could disagree with the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def _writes_in_place(*_args: object, **_kwargs: object) -> None:
    """The fake of an op whose whole effect is on the data of its arguments."""


def _token_of_each_row(logits: torch.Tensor, *_args: object) -> torch.Tensor:
    return logits.new_empty((logits.shape[0],), dtype=torch.int64)


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
    # Eight numbers about the batch, four about each request: csrc/bindings/attention.cc.
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
    # Packed queries or a batch of them; and two empty ones where upstream has what parts of the
    # keys gave.
    shape = (q.shape[0], q.shape[2], q.shape[1]) if starts is None else (q.shape[1], q.shape[0])
    empty = [q.new_empty((0,), dtype=torch.float32) for _ in range(2)]
    return [
        out if isinstance(out, torch.Tensor) else torch.empty_like(q),
        q.new_empty(shape, dtype=torch.float32),
        *empty,
    ]


def _divided(batch: int, queries: int, keys: int, *args: Any) -> torch.Tensor:
    # csrc/attention/flash3/schedule.cc: two numbers for each sequence, one where there is no
    # window, one where there is any mask.
    lengths, page, (causal, left, right), size = args[5], args[11], args[13:16], args[2]
    left, right = -1 if left >= keys - 1 else left, -1 if right >= queries - 1 else right
    if queries == 1 and left < 0 and right < 0 and not (64 < size <= 128 and page is not None):  # noqa: PLR2004 - as there
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
        # As many parts as the device has multiprocessors for: csrc/attention/flashmla/plan.cu.
        if not torch.cuda.is_available():
            raise NotImplementedError(
                "without a GPU nobody knows the shape of tile_scheduler_metadata: pass it, and "
                "num_splits"
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


#: Ops whose schema does not say it all: qualified name → a function of the op's arguments that
#: makes empty tensors like those it returns.
RETURNED: dict[str, Callable[..., object]] = {
    "_C::fused_gumbel_argmax": _token_of_each_row,
    "_C::get_scheduler_metadata": _cut_of_each_request,
    "_C::greedy_argmax": _token_of_each_row,
    "_C_cache_ops::swap_blocks_batch": _writes_in_place,  # through addresses, which its schema does not show
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


#: Keys with which an op needs no fake of its own.
_FILLED = ("Meta", "CompositeImplicitAutograd")
#: A registration lasts as long as the object that made it.
_registered: list[torch.library.Library] = []


def register(namespaces: Iterable[str]) -> tuple[str, ...]:
    """Register fakes for the ops of ``namespaces`` that have none: those that only mutate arguments, and those of :data:`RETURNED`.

    They go to the Meta key, where torch looks for them. ``torch.library.register_fake`` does that,
    too, and reads the caller's source for each op: half a millisecond, which was more than half of
    what importing the ops took.

    Returns:
        The qualified names of the ops that got one, sorted.
    """
    libraries = {space: torch.library.Library(space, "FRAGMENT") for space in namespaces}
    _registered.extend(libraries.values())
    done = []
    for name in sorted(torch._C._dispatch_get_all_op_names()):  # noqa: SLF001 - torch lists its ops nowhere else
        space, _, rest = name.partition("::")
        # A library, or an earlier import of this module, may have filled it. What is made of other
        # ops has theirs.
        if space not in libraries or any(
            torch._C._dispatch_has_kernel_for_dispatch_key(name, key)  # noqa: SLF001
            for key in _FILLED
        ):
            continue
        base, _, overload = name.partition(".")
        schema = torch._C._get_schema(base, overload)  # noqa: SLF001 - no public accessor
        fake = RETURNED.get(name, _writes_in_place if _only_mutates(schema) else None)
        if fake is not None:
            libraries[space].impl(rest, fake, "Meta")
            done.append(name)
    return tuple(done)
