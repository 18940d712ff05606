# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_build.architectures import rocm_archs
from vllm_build.util.errors import ConfigurationError

NAMES = ["gfx906", "gfx908", "gfx90a", "gfx942", "gfx1030", "gfx1100", "gfx1201"]
LISTS = st.lists(st.sampled_from(NAMES), min_size=1).map(
    lambda names: rocm_archs.parse(";".join(names), "test")
)


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("gfx90a", ("gfx90a",)),
        (" gfx1100;gfx90a gfx908;; ", ("gfx908", "gfx90a", "gfx1100")),
        ("gfx90a;gfx90a", ("gfx90a",)),
        ("gfx90a:xnack+:sramecc-", ("gfx90a:sramecc-:xnack+",)),
        ("gfx90a:xnack+;gfx90a:xnack-", ("gfx90a:xnack+", "gfx90a:xnack-")),
    ],
)
def test_lists(text: str, entries: tuple[str, ...]) -> None:
    assert rocm_archs.parse(text, "x") == entries


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ; ",
        "gfx",
        "gfx9",
        "90a",
        "gfx90g",
        "GFX90A",
        "gfx90a,gfx942",
        "gfx90a:xnack",
        "gfx90a:xnack+:xnack-",
        "8.0",
        "gfx12345",
        "gfx11-generic",
        "gfx90a:tgsplit+",
        "gfx999",
        "gfx1100:xnack-",
        "gfx900:sramecc+",
    ],
)
def test_malformed_lists_name_their_source(text: str) -> None:
    with pytest.raises(ConfigurationError, match="PYTORCH_ROCM_ARCH") as caught:
        rocm_archs.parse(text, "PYTORCH_ROCM_ARCH")
    assert caught.value.expected
    assert "," not in text or "semicolons" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("text", "message", "expected", "remedy"),
    [
        ("gfx943", "there is no AMD GPU architecture gfx943", "gfx90a, gfx90c, gfx942", "gfx942"),
        ("gfx1100:xnack-", "gfx1100 has no setting xnack", "no settings", "write gfx1100 in x"),
        ("gfx900:sramecc+", "gfx900 has no setting sramecc", "only the setting xnack", "gfx900"),
        ("gfx11-generic", "'gfx11-generic' is not an AMD GPU", "gfx90a:xnack-", "name processors"),
    ],
)
def test_a_refusal_names_what_there_is(text: str, message: str, expected: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        rocm_archs.parse(text, "x")
    assert message in caught.value.message
    assert expected in (caught.value.expected or "")
    assert remedy in (caught.value.remedy or "")


@pytest.mark.parametrize("text", ["gfx90a;gfx90a:xnack+", "gfx90a:xnack+;gfx90a:sramecc+"])
def test_entries_that_cannot_stand_in_one_binary(text: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be combined in one binary"):
        rocm_archs.parse(text, "x")


@pytest.mark.parametrize(
    ("record", "targets", "compiled", "unserved"),
    [
        ("gfx90a;gfx942", "gfx90a", "gfx90a", ""),
        ("gfx90a;gfx942", "gfx942;gfx1100", "gfx942", "gfx1100"),
        ("gfx90a", "gfx90a:xnack-", "gfx90a:xnack-", ""),
        ("gfx90a:xnack-", "gfx90a", "", "gfx90a"),
        ("gfx90a", "gfx908", "", "gfx908"),
    ],
)
def test_matching(record: str, targets: str, compiled: str, unserved: str) -> None:
    found = rocm_archs.match(
        rocm_archs.parse(record, "record"), rocm_archs.parse(targets, "targets")
    )
    assert tuple(";".join(names) for names in found) == (compiled, unserved)


@given(LISTS, LISTS)
def test_every_target_is_served_or_listed(
    record: tuple[str, ...], targets: tuple[str, ...]
) -> None:
    compiled, unserved = rocm_archs.match(record, targets)
    assert set(compiled) | set(unserved) == set(targets)
    assert set(compiled) <= set(record)
    assert rocm_archs.match(reversed(record), reversed(targets))[0] == compiled


@given(LISTS)
def test_lists_read_back_what_they_print(entries: tuple[str, ...]) -> None:
    assert rocm_archs.parse(" ".join(entries), "x") == entries


@given(st.text(max_size=30) | st.text("gfx0123456789abc:+-;,xnack ", max_size=30))
def test_no_text_crashes_the_parser(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        assert rocm_archs.parse(text, "x")
