# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_build.errors import ConfigurationError
from vllm_build.settings import DEVICES, Settings


def test_nothing_set_gives_defaults() -> None:
    assert Settings.from_environ({}) == Settings()


@pytest.mark.parametrize(
    "name", ["VLLM_TARGET_DEVICE", "MAX_JOBS", "VERBOSE", "CMAKE_BUILD_TYPE", "VLLM_BUILD_ROOT", "VLLM_VERSION_OVERRIDE"]
)
def test_empty_counts_as_unset(name: str) -> None:
    assert Settings.from_environ({name: "  "}) == Settings()


@pytest.mark.parametrize("device", DEVICES)
def test_device_in_any_case(device: str) -> None:
    assert Settings.from_environ({"VLLM_TARGET_DEVICE": device.upper()}).target_device == device


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VLLM_TARGET_DEVICE", "gpu"),
        ("MAX_JOBS", "0"),
        ("MAX_JOBS", "-1"),
        ("MAX_JOBS", "two"),
        ("MAX_JOBS", "1.5"),
        ("MAX_JOBS", "²"),
        ("VERBOSE", "maybe"),
        ("CMAKE_BUILD_TYPE", "Fast"),
        ("CMAKE_ARGS", "-DA='open"),
    ],
)
def test_malformed_value_names_the_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name) as caught:
        Settings.from_environ({name: value})
    assert caught.value.expected


@given(st.integers(min_value=1, max_value=10**6))
def test_every_positive_count_is_read(count: int) -> None:
    assert Settings.from_environ({"MAX_JOBS": f" {count} "}).max_jobs == count


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1)))
def test_cmake_args_are_split_like_a_shell(words: list[str]) -> None:
    assert Settings.from_environ({"CMAKE_ARGS": shlex.join(words)}).cmake_args == tuple(words)
