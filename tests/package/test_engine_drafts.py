# SPDX-License-Identifier: Apache-2.0
"""Drafts from n-grams: those of the definition, for every sequence of a few tokens."""

from __future__ import annotations

import itertools
import types
from typing import TYPE_CHECKING, Any

import pytest

np = pytest.importorskip("numpy", reason="NumPy is not installed here")

from vllm._kernels.engine import ngram, stand_ins  # noqa: E402 - after the check

if TYPE_CHECKING:
    from collections.abc import Sequence


def defined(tokens: Sequence[int], shortest: int, longest: int, count: int) -> list[int]:
    """The draft by the definition: the longest suffix first, the first occurrence first."""
    for length in range(min(longest, len(tokens) - 1), shortest - 1, -1):
        suffix = tokens[-length:]
        for start in range(len(tokens) - length):
            if tokens[start : start + length] == suffix:
                return list(tokens[start + length : start + length + max(count, 0)])
    return []


@pytest.mark.parametrize(("shortest", "longest"), [(1, 1), (1, 3), (2, 4), (3, 3), (5, 9)])
def test_drafts_are_those_of_the_definition(shortest: int, longest: int) -> None:
    for size in range(7):
        for tokens in itertools.product(range(3), repeat=size):
            for count in (0, 1, 4):
                found = ngram.draft(np.array(tokens, np.int32), shortest, longest, count)
                assert found.tolist() == defined(tokens, shortest, longest, count), tokens


def proposer(**changes: Any) -> ngram.NgramProposer:
    settings = {"prompt_lookup_min": 2, "prompt_lookup_max": 3, "num_speculative_tokens": 4}
    return ngram.NgramProposer(
        types.SimpleNamespace(
            speculative_config=types.SimpleNamespace(**{**settings, **changes}),
            model_config=types.SimpleNamespace(max_model_len=10),
        )
    )


def test_a_batch_has_a_draft_for_each_request() -> None:
    """No new token, no occurrence, an occurrence, one that the model's length cuts, none left."""
    rows = np.zeros((5, 12), np.int32)
    rows[0, :5] = [1, 2, 3, 1, 2]
    rows[1, :5] = [1, 2, 3, 4, 5]
    rows[2, :5] = [1, 2, 3, 1, 2]
    rows[3, :8] = [1, 2, 3, 4, 5, 6, 1, 2]
    rows[4, :10] = [1, 2] * 5
    sizes = np.array([5, 5, 5, 8, 10], np.int32)
    drafts = proposer().propose(4, [[], [5], [2], [2], [2]], sizes, rows, slot_mappings=None)
    assert drafts == [[], [], [3, 1, 2], [3, 4], []]
    proposer().load_model(None, x=1)


def test_the_module_stands_in_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    name = "vllm.v1.spec_decode.ngram_proposer"
    for installed in (True, False):
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setattr(
            stand_ins.importlib.util, "find_spec", lambda _, found=installed: found or None
        )
        stand_ins.without_numba()
        assert (sys.modules.get(name) is ngram) == (not installed)
    monkeypatch.delitem(sys.modules, name)
