# SPDX-License-Identifier: Apache-2.0
"""Mixture of experts: route tokens, sort the routes for matrix products, sum the results.

On a GPU, whose memory the host does not read, the number of an expert that does not exist is not an
error: the route is skipped, as with -1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.loader import namespace

if TYPE_CHECKING:
    import torch

_C = namespace("_C")
_moe_C = namespace("_moe_C")  # noqa: N816 - upstream's name of the namespace


def topk_softmax(
    topk_weights: torch.Tensor,
    topk_indices: torch.Tensor,
    token_expert_indices: torch.Tensor,
    gating_output: torch.Tensor,
    renormalize: bool,  # noqa: FBT001 - upstream's signature, called by position
    bias: torch.Tensor | None,
    is_padding: torch.Tensor | None,
) -> None:
    """Route each token to the ``topk`` experts with the greatest softmax, the best first.

    ``scores = softmax(gating_output)``. The experts are those with the greatest ``scores + bias``;
    of equal ones the lower number comes first. Their weights are ``scores``, without the bias. A
    score that is not finite counts as 0 and is chosen last, so a token's experts are always
    distinct.

    Source: Shazeer et al., Outrageously Large Neural Networks, 2017 (arXiv:1701.06538), section
    2.1; the bias from Wang et al., Auxiliary-Loss-Free Load Balancing, 2024 (arXiv:2408.15664).

    Args:
        topk_weights: ``[tokens, topk]`` float32, overwritten.
        topk_indices: ``[tokens, topk]`` int32, uint32 or int64, overwritten with expert numbers.
        token_expert_indices: ``[tokens, topk]`` int32, overwritten with ``k * tokens + token`` for
            choice ``k`` of a token.
        gating_output: ``[tokens, experts]``, the router's logits; ``topk <= experts``.
        renormalize: divide the weights of a token by their sum.
        bias: ``[experts]``, added to the scores only for the choice; float32, bfloat16 or float16;
            or None.
        is_padding: ``[tokens]`` bool: all choices of a padding token are expert -1 with weight 0.
            None means no padding.
    """
    _moe_C.topk_softmax(
        topk_weights,
        topk_indices,
        token_expert_indices,
        gating_output,
        renormalize,
        bias,
        is_padding,
    )


def topk_sigmoid(
    topk_weights: torch.Tensor,
    topk_indices: torch.Tensor,
    token_expert_indices: torch.Tensor,
    gating_output: torch.Tensor,
    renormalize: bool,  # noqa: FBT001 - upstream's signature, called by position
    bias: torch.Tensor | None,
    routed_scaling_factor: float,
    is_padding: torch.Tensor | None,
) -> None:
    """Route each token to the ``topk`` experts with the greatest sigmoid, the best first.

    Same as :func:`topk_softmax`, with ``scores = sigmoid(gating_output)`` and a final factor.

    Source: DeepSeek-V3 technical report, 2024 (arXiv:2412.19437), section 2.1.2.

    Args:
        topk_weights: ``[tokens, topk]`` float32, overwritten.
        topk_indices: ``[tokens, topk]`` int32, uint32 or int64, overwritten with expert numbers.
        token_expert_indices: ``[tokens, topk]`` int32, overwritten with ``k * tokens + token`` for
            choice ``k`` of a token.
        gating_output: ``[tokens, experts]``, the router's logits; ``topk <= experts``.
        renormalize: divide the weights of a token by their sum, before applying the factor.
        bias: ``[experts]``, added to the scores only for the choice; float32, bfloat16 or float16;
            or None.
        routed_scaling_factor: factor of all weights.
        is_padding: ``[tokens]`` bool: all choices of a padding token are expert -1 with weight 0.
            None means no padding.
    """
    _moe_C.topk_sigmoid(
        topk_weights,
        topk_indices,
        token_expert_indices,
        gating_output,
        renormalize,
        bias,
        routed_scaling_factor,
        is_padding,
    )


def grouped_topk(
    scores: torch.Tensor,
    n_group: int,
    topk_group: int,
    topk: int,
    renormalize: bool,  # noqa: FBT001 - upstream's signature, called by position
    routed_scaling_factor: float,
    bias: torch.Tensor,
    scoring_func: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Route each token within its best groups of experts.

    The experts form ``n_group`` groups of equal size. The score of a group is the sum of its two
    greatest ``f(scores) + bias``. The ``topk`` experts come from the ``topk_group`` best groups.
    Their weights are ``f(scores)``, without the bias. Scores that are not finite are chosen last. A
    token without finite scores gets the first experts with equal weights.

    Source: DeepSeek-V3 technical report, 2024 (arXiv:2412.19437), section 2.1.2.

    Args:
        scores: ``[tokens, experts]``: logits or scores.
        n_group: number of groups, a divisor of ``experts``; 1 disables the choice of groups.
        topk_group: number of groups that are kept.
        topk: number of experts per token, at most the number in the kept groups.
        renormalize: divide the weights of a token by their sum, before applying the factor.
        routed_scaling_factor: factor of all weights.
        bias: ``[experts]``, added to the scores only for the choices; float32, bfloat16 or float16.
        scoring_func: 0 for ``f(x) = x``, 1 for ``f(x) = 1 / (1 + exp(-x))``.

    Returns:
        The weights, float32, and the expert numbers, int32; both are ``[tokens, topk]``, the best
        first.
    """
    chosen: tuple[torch.Tensor, torch.Tensor] = _moe_C.grouped_topk(
        scores, n_group, topk_group, topk, renormalize, routed_scaling_factor, bias, scoring_func
    )
    return chosen


def moe_align_block_size(
    topk_ids: torch.Tensor,
    num_experts: int,
    block_size: int,
    sorted_token_ids: torch.Tensor,
    experts_ids: torch.Tensor,
    num_tokens_post_pad: torch.Tensor,
    maybe_expert_map: torch.Tensor | None,
    scatter_idx: torch.Tensor | None = None,
) -> None:
    """Sort routes by expert and pad each expert's part to whole blocks.

    A block of a matrix product then has one expert. A route is the index of an element in the
    flattened ``topk_ids``. The routes of an expert stay in order.

    Source: the layout of vLLM's fused MoE kernels.

    Args:
        topk_ids: ``[tokens, topk]`` int32 or int64: the experts. -1 and ``num_experts`` mark a
            route that is skipped. Other numbers outside the range are an error, and nothing is
            written.
        num_experts: number of experts.
        block_size: number of routes in a block.
        sorted_token_ids: ``[length]`` int32, overwritten with routes; padding is
            ``topk_ids.numel()``. It must hold all parts; a length of ``topk_ids.numel() +
            num_experts * (block_size - 1)`` always suffices. On a GPU, blocks that do not fit are
            dropped.
        experts_ids: ``[blocks]`` int32, overwritten with the expert of each block, -1 after the
            last block.
        num_tokens_post_pad: ``[1]`` int32, overwritten with the total length of all parts.
        maybe_expert_map: ``[num_experts]`` int32: the local number of an expert, or -1 if it is on
            another device and its routes are skipped; or None.
        scatter_idx: int32, as many elements as ``topk_ids``, overwritten with the route itself, or
            -1 if it is skipped; or None.
    """
    _moe_C.moe_align_block_size(
        topk_ids,
        num_experts,
        block_size,
        sorted_token_ids,
        experts_ids,
        num_tokens_post_pad,
        maybe_expert_map,
        scatter_idx,
    )


def batched_moe_align_block_size(
    max_tokens_per_batch: int,
    block_size: int,
    expert_num_tokens: torch.Tensor,
    sorted_token_ids: torch.Tensor,
    experts_ids: torch.Tensor,
    num_tokens_post_pad: torch.Tensor,
) -> None:
    """Make the table of :func:`moe_align_block_size` for tokens that are already sorted.

    Each expert has ``max_tokens_per_batch`` rows.

    Source: the layout of vLLM's batched MoE kernels.

    Args:
        max_tokens_per_batch: number of rows of each expert, used or not.
        block_size: number of rows in a block.
        expert_num_tokens: ``[experts]`` int32: how many rows of each expert are used, beginning
            with the first.
        sorted_token_ids: ``[length]`` int32, overwritten with row numbers; padding is ``experts *
            max_tokens_per_batch``. The length is at least ``experts`` times
            ``max_tokens_per_batch`` rounded up to whole blocks.
        experts_ids: ``[blocks]`` int32, overwritten with the expert of each block, -1 after the
            last block.
        num_tokens_post_pad: ``[1]`` int32, overwritten with the total length of all parts.
    """
    _moe_C.batched_moe_align_block_size(
        max_tokens_per_batch,
        block_size,
        expert_num_tokens,
        sorted_token_ids,
        experts_ids,
        num_tokens_post_pad,
    )


def moe_sum(
    input: torch.Tensor,  # noqa: A002 - upstream's name
    output: torch.Tensor,
    topk_ids: torch.Tensor | None = None,
    expert_map: torch.Tensor | None = None,
) -> None:
    """Sum the results of each token's experts: ``output[t] = sum over k of input[t, k]``.

    The sum is computed in float32.

    Source: Shazeer et al., 2017 (arXiv:1701.06538), equation 1.

    Args:
        input: ``[tokens, topk, hidden]``; the first two dimensions may have any strides.
        output: ``[tokens, hidden]``, overwritten.
        topk_ids: ``[tokens, topk]`` int32 or int64: rows whose expert is -1 are not read. None adds
            all rows.
        expert_map: ``[experts]`` int32: rows whose expert maps to a negative number are not read.
            Requires ``topk_ids``.
    """
    _moe_C.moe_sum(input, output, topk_ids, expert_map)


def prepack_moe_weight(weight: torch.Tensor, packed_weight: torch.Tensor, isa: str) -> None:
    """Pack the weights of experts for :func:`cpu_fused_moe`.

    The packed layout has panels of 16 outputs, which a product reads sequentially.

    Source: Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008.

    Args:
        weight: ``[experts, outputs, inputs]``, any strides.
        packed_weight: the same shape and dtype, overwritten; only :func:`cpu_fused_moe` can read
            the contents.
        isa: upstream's name of a layout, such as ``vec`` or ``amx``; all names give the same
            layout.
    """
    _C.prepack_moe_weight(weight, packed_weight, isa)


def cpu_fused_moe(  # noqa: PLR0917 - upstream's signature
    output: torch.Tensor,
    input: torch.Tensor,  # noqa: A002 - upstream's name
    w13: torch.Tensor,
    w2: torch.Tensor,
    w13_bias: torch.Tensor | None,
    w2_bias: torch.Tensor | None,
    topk_weights: torch.Tensor,
    topk_id: torch.Tensor,
    skip_weighted: bool,  # noqa: FBT001 - upstream's signature, called by position
    act: str,
    isa: str,
) -> None:
    """Compute the experts' feed-forward layers for routed tokens, and their weighted sum.

    ``output[t] = sum over k of topk_weights[t, k] * (act(input[t] @ w13[e].T + w13_bias[e]) @
    w2[e].T + w2_bias[e])`` with ``e = topk_id[t, k]``, computed in float32 and rounded once. In
    bfloat16, the results of ``act`` are rounded too, because CPUs multiply bfloat16 only by
    bfloat16. All sizes are supported.

    Source: Shazeer et al., 2017 (arXiv:1701.06538), equation 1; the layers from Shazeer, 2020
        (arXiv:2002.05202).

    Args:
        output: ``[tokens, hidden]``, overwritten.
        input: ``[tokens, hidden]``.
        w13: ``[experts, 2 * inner, hidden]``, packed by :func:`prepack_moe_weight`: the gates, then
            the values that they multiply; for ``swigluoai`` they alternate.
        w2: ``[experts, hidden, inner]``, packed in the same way.
        w13_bias: ``[experts, 2 * inner]`` or None.
        w2_bias: ``[experts, hidden]`` or None.
        topk_weights: ``[tokens, topk]`` float32.
        topk_id: ``[tokens, topk]`` int32 or int64. -1 and the number of experts mark a route that
            is skipped. Other numbers outside the range are an error, and nothing is written.
        skip_weighted: treat all weights as 1, because the input is already weighted. Only with one
            expert per token.
        act: ``silu``, ``gelu`` (exact) or ``gelu_tanh`` of the gate, times the value; or
            ``swigluoai``, the function of gpt-oss: ``g / (1 + exp(-1.702 g)) * (u + 1)`` with ``g =
            min(gate, 7)`` and ``u`` the value clamped to -7 to 7.
        isa: upstream's name of the layout, the same as for packing.
    """
    _C.cpu_fused_moe(
        output, input, w13, w2, w13_bias, w2_bias, topk_weights, topk_id, skip_weighted, act, isa
    )
