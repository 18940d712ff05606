# SPDX-License-Identifier: Apache-2.0
"""Checks that hypothesis works under pytest, with a true and a false property."""

import pytest
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.integers()))
def test_reversing_twice_changes_nothing(values: list[int]) -> None:
    assert list(reversed(list(reversed(values)))) == values


def test_a_false_property_is_found_out() -> None:
    @given(st.integers())
    def small(value: int) -> None:
        assert value < 1000

    with pytest.raises(AssertionError):
        small()
