# SPDX-License-Identifier: Apache-2.0
"""A property that holds and one that does not: pytest and hypothesis find each other."""

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
