# SPDX-License-Identifier: Apache-2.0
"""Wrong arguments of the ops for rejection sampling."""

from __future__ import annotations

from typing import Any

import pytest
import torch

ENDS, DRAFTS = torch.tensor([2, 3]), torch.tensor([4, 0, 2])
PROBS = torch.full((3, 5), 0.2)
#: The arguments of each op, by the names in its schema.
GOOD: dict[str, dict[str, Any]] = {
    "rejection_greedy_sample": {
        "output_token_ids": torch.zeros(2, 3, dtype=torch.int64),
        "cu_num_draft_tokens": ENDS,
        "draft_token_ids": DRAFTS,
        "target_argmax": DRAFTS,
        "bonus_token_ids": ENDS,
        "is_greedy": torch.ones(2, dtype=torch.bool),
        "max_spec_len": 2,
    },
    "rejection_random_sample": {
        "output_token_ids": torch.zeros(2, 3, dtype=torch.int64),
        "cu_num_draft_tokens": ENDS,
        "draft_token_ids": DRAFTS,
        "draft_probs": PROBS,
        "target_probs": PROBS,
        "bonus_token_ids": ENDS,
        "recovered_token_ids": DRAFTS,
        "uniform_probs": torch.rand(3),
        "is_greedy": torch.zeros(2, dtype=torch.bool),
        "max_spec_len": 2,
        "vocab_size": 5,
        "no_draft_probs": False,
    },
    "expand": {
        "output": torch.zeros(3, dtype=torch.int64),
        "input": ENDS,
        "cu_num_tokens": ENDS,
        "replace_from": 0,
        "replace_to": 0,
    },
    "sample_recovered_tokens": {
        "output_token_ids": torch.zeros(3, dtype=torch.int64),
        "cu_num_draft_tokens": ENDS,
        "draft_token_ids": DRAFTS,
        "draft_probs": PROBS,
        "target_probs": PROBS,
        "inv_q": PROBS[:2],
        "vocab_size": 5,
        "no_draft_probs": False,
    },
}
SAMPLERS = [name for name in GOOD if name.endswith("_sample")]
WITH_PROBS = ["rejection_random_sample", "sample_recovered_tokens"]
DRAFTED = [name for name in GOOD if name != "expand"]
#: (ops, argument, wrong value, message)
BAD = [
    (DRAFTED, "cu_num_draft_tokens", ENDS.float(), "cu_num_draft_tokens is of dtype Float"),
    (DRAFTED, "cu_num_draft_tokens", ENDS.flip(0), "cu_num_draft_tokens has 2 at 1, expected num"),
    (DRAFTED, "cu_num_draft_tokens", ENDS + 1, "cu_num_draft_tokens has 4 at 1"),
    (DRAFTED, "cu_num_draft_tokens", ENDS - 3, "cu_num_draft_tokens has -1 at 0"),
    (DRAFTED, "draft_token_ids", DRAFTS[None], r"draft_token_ids has shape \[1, 3\]"),
    (WITH_PROBS, "draft_token_ids", DRAFTS + 1, "draft_token_ids has 5 at 0, expected less than"),
    (WITH_PROBS, "target_probs", PROBS.double(), "target_probs is of dtype Double, expected Float"),
    (WITH_PROBS, "target_probs", PROBS[:2], r"target_probs has shape \[2, 5\], expected \[3, 5\]"),
    (WITH_PROBS, "draft_probs", PROBS[:, :4], r"draft_probs has shape \[3, 4\]"),
    (WITH_PROBS, "draft_probs", None, "draft_probs is missing, but no_draft_probs is False"),
    (WITH_PROBS, "draft_probs", torch.rand(5, 3).t(), "draft_probs has strides"),
    (
        SAMPLERS,
        "output_token_ids",
        torch.zeros(2, 2).long(),
        r"output_token_ids has shape \[2, 2\]",
    ),
    (SAMPLERS, "output_token_ids", torch.zeros(2, 3), "output_token_ids is of dtype Float"),
    (SAMPLERS, "output_token_ids", DRAFTS.expand(2, 3), "output_token_ids has strides"),
    (SAMPLERS, "bonus_token_ids", DRAFTS, r"bonus_token_ids has shape \[3\], expected \[2\]: one"),
    (SAMPLERS, "is_greedy", ENDS, "is_greedy is of dtype Long, expected Bool"),
    (SAMPLERS, "max_spec_len", 1, "cu_num_draft_tokens gives request 0 2 drafts, expected at most"),
    (SAMPLERS, "max_spec_len", -1, "max_spec_len is -1, expected at least 0"),
    (
        SAMPLERS[:1],
        "target_argmax",
        ENDS,
        r"target_argmax has shape \[2\], expected \[3\]: one for",
    ),
    (SAMPLERS[1:], "recovered_token_ids", ENDS, r"recovered_token_ids has shape \[2\]"),
    (
        SAMPLERS[1:],
        "uniform_probs",
        torch.rand(2),
        r"uniform_probs has shape \[2\], expected \[3\]",
    ),
    (
        SAMPLERS[1:],
        "uniform_probs",
        DRAFTS,
        "uniform_probs is of dtype Long, expected Float or Dou",
    ),
    (["sample_recovered_tokens"], "inv_q", PROBS, r"inv_q has shape \[3, 5\], expected \[2, 5\]"),
    (["sample_recovered_tokens"], "vocab_size", 0, "vocab_size is 0, expected at least 1"),
    (["sample_recovered_tokens"], "output_token_ids", ENDS, r"output_token_ids has shape \[2\]"),
    (["expand"], "output", torch.zeros(3), "output is of dtype Float, expected Long, the dtype of"),
    (["expand"], "input", ENDS.bool(), "input is of dtype Bool"),
    (["expand"], "cu_num_tokens", DRAFTS, r"cu_num_tokens has shape \[3\]"),
    (["expand"], "cu_num_tokens", ENDS + 1, "cu_num_tokens has 4 at 1, expected numbers from 3 to"),
]
CASES = [(name, *rest) for names, *rest in BAD for name in names]


@pytest.mark.parametrize("name", GOOD)
def test_good_arguments(ops: Any, name: str) -> None:
    getattr(ops, f"{name}_kernel_impl")(**GOOD[name])


@pytest.mark.parametrize(
    ("name", "argument", "value", "message"),
    CASES,
    ids=[f"{name}-{argument}-{i}" for i, (name, argument, *_) in enumerate(CASES)],
)
def test_bad_arguments(ops: Any, name: str, argument: str, value: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=f"^{name}_kernel_impl: {message}"):
        getattr(ops, f"{name}_kernel_impl")(**GOOD[name] | {argument: value})


def test_a_number_that_the_dtype_lacks(ops: Any) -> None:
    arguments = GOOD["expand"] | {"output": torch.zeros(3).int(), "input": ENDS.int()}
    with pytest.raises(RuntimeError, match="replace_from or replace_to is 4294967296, expected a"):
        ops.expand_kernel_impl(**arguments | {"replace_to": 2**32})
