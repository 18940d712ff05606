# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_build import gfx
from vllm_build.errors import ConfigurationError

NAMES = ["gfx906", "gfx908", "gfx90a", "gfx942", "gfx1030", "gfx1100", "gfx1201"]
LISTS = st.lists(st.sampled_from(NAMES), min_size=1).map(lambda names: gfx.parse(";".join(names), "test"))


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
    assert gfx.parse(text, "x") == entries


@pytest.mark.parametrize(
    "text",
    ["", " ; ", "gfx", "gfx9", "90a", "gfx90g", "GFX90A", "gfx90a,gfx942", "gfx90a:xnack", "gfx90a:xnack+:xnack-", "8.0", "gfx12345"],
)
def test_malformed_lists_name_their_source(text: str) -> None:
    with pytest.raises(ConfigurationError, match="PYTORCH_ROCM_ARCH") as caught:
        gfx.parse(text, "PYTORCH_ROCM_ARCH")
    assert caught.value.expected
    assert "," not in text or "semicolons" in (caught.value.remedy or "")


@pytest.mark.parametrize("text", ["gfx90a;gfx90a:xnack+", "gfx90a:xnack+;gfx90a:sramecc+"])
def test_entries_that_cannot_stand_in_one_binary(text: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot stand in one binary"):
        gfx.parse(text, "x")


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
    found = gfx.match(gfx.parse(record, "record"), gfx.parse(targets, "targets"))
    assert tuple(";".join(names) for names in found) == (compiled, unserved)


@given(LISTS, LISTS)
def test_every_target_is_served_or_listed(record: tuple[str, ...], targets: tuple[str, ...]) -> None:
    compiled, unserved = gfx.match(record, targets)
    assert set(compiled) | set(unserved) == set(targets)
    assert set(compiled) <= set(record)
    assert gfx.match(reversed(record), reversed(targets))[0] == compiled


@given(LISTS)
def test_lists_read_back_what_they_print(entries: tuple[str, ...]) -> None:
    assert gfx.parse(" ".join(entries), "x") == entries


@given(st.text(max_size=30) | st.text("gfx0123456789abc:+-;,xnack ", max_size=30))
def test_no_text_crashes_the_parser(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        assert gfx.parse(text, "x")
