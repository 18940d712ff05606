# SPDX-License-Identifier: Apache-2.0
"""Addresses, windows, ranges and validators: any input gives the right result or an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_build.reuse.net import http_answer, request_windows, reuse_context, transport
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.util.errors import ConfigurationError

SPANS = st.lists(
    st.tuples(st.integers(0, 500), st.integers(0, 60)).map(
        lambda pair: (pair[0], pair[0] + pair[1])
    ),
    max_size=12,
)


@given(SPANS, st.integers(1, 4), st.floats(0, 1), st.integers(1, 50))
def test_requests_cover_the_needed_bytes_and_few_others(
    needed: list[tuple[int, int]], streams: int, waste: float, least: int
) -> None:
    asked = request_windows.plan_requests(needed, waste=waste, streams=streams, least=least)
    wanted = {byte for begin, end in needed for byte in range(begin, end)}
    brought = [byte for begin, end in asked for byte in range(begin, end)]
    assert wanted <= set(brought)
    assert len(brought) == len(set(brought)), "no byte is requested twice"
    assert len(brought) - len(wanted) <= waste * len(wanted) + 1e-6
    assert len(asked) <= max(streams, len(request_windows.merge(needed)))


def test_one_large_window_is_split_into_parallel_requests() -> None:
    assert request_windows.plan_requests([(0, 1 << 21)]) == [(0, 1 << 20), (1 << 20, 1 << 21)]
    assert request_windows.plan_requests([(0, 1 << 21)], streams=1) == [(0, 1 << 21)]
    assert request_windows.plan_requests([]) == []


@given(
    st.text(max_size=40) | st.from_regex(r"bytes \d+-\d+/\d+", fullmatch=True),
    st.sampled_from(["-10", "5-", "5-9", "0-0"]),
)
def test_any_content_range(text: str, window: str) -> None:
    try:
        first, length, total = http_answer._parse_range(text, window, "http://x")
    except RefusedError:
        return
    assert 0 <= first < first + length <= total
    if window == "5-9":
        assert (first, length <= 5) == (5, True)


@pytest.mark.parametrize(
    ("text", "window", "expected"),
    [
        ("bytes 90-99/100", "-10", (90, 10, 100)),
        ("bytes 0-3/4", "-10", (0, 4, 4)),
        ("bytes 5-9/100", "5-9", (5, 5, 100)),
        ("bytes 5-7/8", "5-", (5, 3, 8)),
    ],
)
def test_content_ranges(text: str, window: str, expected: tuple[int, int, int]) -> None:
    assert http_answer._parse_range(text, window, "http://x") == expected


def test_a_range_that_was_not_requested() -> None:
    with pytest.raises(RefusedError, match="bytes None were requested"):
        http_answer._parse_range("bytes 0-3/4", None, "http://x")


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("/a/b.whl", "b.whl"),
        ("https://x/a/b%2Bcpu.whl?key=1", "b+cpu.whl"),
        ("file:///a/b.conda", "b.conda"),
        ("~/b.whl", "b.whl"),
    ],
)
def test_file_names_of_locations(location: str, name: str) -> None:
    assert reuse_context.file_name(location) == name


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("ftp://x/a.whl", "a scheme that kernels cannot be fetched with"),
        ("s3://bucket/a.whl", "a scheme that kernels cannot be fetched with"),
        ("file://other/a.whl", "a scheme that kernels cannot be fetched with"),
        ("http://[/a.whl", "is not an address"),
    ],
)
def test_locations_that_are_refused(location: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        reuse_context.local_path(location)


@pytest.mark.parametrize(
    "url", ["ftp://x/", "http://", "http:///a", "file:///a", "http://[", "", "x"]
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(RefusedError, match="scheme"):
        transport.check_url(url)


def test_https_does_not_redirect_to_http() -> None:
    transport.check_url("https://a/", "http://a/")
    with pytest.raises(RefusedError, match="redirect"):
        transport.check_url("http://a/", "https://a/")


def test_validators() -> None:
    strong = http_answer.Validator('"a"', None, 5)
    weak = http_answer.Validator('W/"a"', None, 5)
    dated = http_answer.Validator(None, "Mon", 5)
    assert (strong.condition, weak.condition, dated.condition) == ('"a"', None, "Mon")
    assert strong.same(dated)
    assert not strong.same(weak)
    assert not strong.same(http_answer.Validator('"a"', None, 6))
