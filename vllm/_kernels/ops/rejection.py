# SPDX-License-Identifier: Apache-2.0
"""Rejection sampling of the tokens that a draft model proposes.

The drafts of a batch are in one vector, those of one request after those of the other.
``cu_num_draft_tokens`` has the end of each request's drafts. Vectors of numbers of tokens are int32
or int64, each on its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.loader import namespace

if TYPE_CHECKING:
    import torch

_C = namespace("_C")


def rejection_greedy_sample_kernel_impl(
    output_token_ids: torch.Tensor,
    cu_num_draft_tokens: torch.Tensor,
    draft_token_ids: torch.Tensor,
    target_argmax: torch.Tensor,
    bonus_token_ids: torch.Tensor,
    is_greedy: torch.Tensor | None,
    max_spec_len: int,
) -> None:
    """Accept the drafts of greedy requests that are the target's tokens.

    A row of the output gets the target's tokens up to the first that differs from the draft. If
    none does, the bonus token follows. Nothing else is written.

    Source: Leviathan et al., Fast Inference from Transformers via Speculative Decoding, 2023
        (arXiv:2211.17192), at temperature 0.

    Args:
        output_token_ids: ``[requests, max_spec_len + 1 or more]``.
        cu_num_draft_tokens: ``[requests]``.
        draft_token_ids: ``[drafts]``; negative ones are padding and never accepted.
        target_argmax: ``[drafts]``, the target model's most likely tokens.
        bonus_token_ids: ``[requests]`` or ``[requests, 1]``.
        is_greedy: ``[requests]`` bool; other requests are left out. None: all are greedy.
        max_spec_len: the most drafts of a request.
    """
    _C.rejection_greedy_sample_kernel_impl(
        output_token_ids,
        cu_num_draft_tokens,
        draft_token_ids,
        target_argmax,
        bonus_token_ids,
        is_greedy,
        max_spec_len,
    )


def rejection_random_sample_kernel_impl(  # noqa: PLR0917 - upstream's signature, called by position
    output_token_ids: torch.Tensor,
    cu_num_draft_tokens: torch.Tensor,
    draft_token_ids: torch.Tensor,
    draft_probs: torch.Tensor | None,
    target_probs: torch.Tensor,
    bonus_token_ids: torch.Tensor,
    recovered_token_ids: torch.Tensor,
    uniform_probs: torch.Tensor,
    is_greedy: torch.Tensor | None,
    max_spec_len: int,
    vocab_size: int,
    no_draft_probs: bool,  # noqa: FBT001 - upstream's signature, called by position
) -> None:
    """Accept drafts at random, so that tokens have the target's distribution.

    Draft ``t`` is accepted if ``q(t) > 0`` and ``p(t) / q(t) >= u``. The first one that is not is
    replaced by its recovered token. If all are accepted, the bonus token follows. Nothing else is
    written.

    Source: Leviathan et al., 2023 (arXiv:2211.17192), algorithm 1.

    Args:
        output_token_ids: ``[requests, max_spec_len + 1 or more]``.
        cu_num_draft_tokens: ``[requests]``.
        draft_token_ids: ``[drafts]``; negative ones are padding and never accepted.
        draft_probs: ``q``, ``[drafts, vocab_size]`` float32.
        target_probs: ``p``, ``[drafts, vocab_size]`` float32.
        bonus_token_ids: ``[requests]`` or ``[requests, 1]``.
        recovered_token_ids: ``[drafts]``, from :func:`sample_recovered_tokens_kernel_impl`.
        uniform_probs: ``u``, ``[drafts]`` in float32 or float64; compared in float32.
        is_greedy: ``[requests]`` bool; greedy requests are left out. None: none is greedy.
        max_spec_len: the most drafts of a request.
        vocab_size: the number of tokens.
        no_draft_probs: whether ``q`` is 1 and ``draft_probs`` is not read.
    """
    _C.rejection_random_sample_kernel_impl(
        output_token_ids,
        cu_num_draft_tokens,
        draft_token_ids,
        draft_probs,
        target_probs,
        bonus_token_ids,
        recovered_token_ids,
        uniform_probs,
        is_greedy,
        max_spec_len,
        vocab_size,
        no_draft_probs,
    )


def expand_kernel_impl(
    output: torch.Tensor,
    input: torch.Tensor,  # noqa: A002 - upstream's name
    cu_num_tokens: torch.Tensor,
    replace_from: int,
    replace_to: int,
) -> None:
    """Repeat the number of each request for all of its tokens.

    Source: vLLM's interface.

    Args:
        output: ``[tokens]``; the elements of requests are overwritten.
        input: ``[requests]``, int64, int32 or float32; same dtype as ``output``.
        cu_num_tokens: ``[requests]``, the end of each request's tokens.
        replace_from: a number of ``input`` that is replaced.
        replace_to: what it is replaced by.
    """
    _C.expand_kernel_impl(output, input, cu_num_tokens, replace_from, replace_to)


def sample_recovered_tokens_kernel_impl(
    output_token_ids: torch.Tensor,
    cu_num_draft_tokens: torch.Tensor,
    draft_token_ids: torch.Tensor,
    draft_probs: torch.Tensor | None,
    target_probs: torch.Tensor,
    inv_q: torch.Tensor,
    vocab_size: int,
    no_draft_probs: bool,  # noqa: FBT001 - upstream's signature, called by position
) -> None:
    """Draw the tokens that replace drafts, from ``max(p - q, 0)``.

    The token is that with the largest ``max(p - q, 0) * inv_q``: the first of equal ones. NaN is
    ignored. If there is nothing else, the token is 0.

    Source: Leviathan et al., 2023 (arXiv:2211.17192), algorithm 1. That the largest quotient by
        independent exponential numbers is a draw: Gumbel, Statistical Theory of Extreme Values,
        1954.

    Args:
        output_token_ids: ``[drafts]``, overwritten.
        cu_num_draft_tokens: ``[requests]``.
        draft_token_ids: ``[drafts]``; negative ones are padding.
        draft_probs: ``q``, ``[drafts, vocab_size]`` float32.
        target_probs: ``p``, ``[drafts, vocab_size]`` float32.
        inv_q: ``[requests, vocab_size]`` float32: reciprocals of samples of the exponential
            distribution.
        vocab_size: the number of tokens, at least 1.
        no_draft_probs: whether ``q`` is 1 for the draft and 0 for all others, and ``draft_probs``
            is not read.
    """
    _C.sample_recovered_tokens_kernel_impl(
        output_token_ids,
        cu_num_draft_tokens,
        draft_token_ids,
        draft_probs,
        target_probs,
        inv_q,
        vocab_size,
        no_draft_probs,
    )
