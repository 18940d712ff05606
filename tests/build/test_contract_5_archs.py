# SPDX-License-Identifier: Apache-2.0
"""Build contract, section 5: architecture matching."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_build.architectures import cuda_archs
from vllm_build.util.errors import ConfigurationError

ARCHS = st.builds(
    cuda_archs.Arch,
    st.integers(5, 13),
    st.integers(0, 9),
    st.sampled_from(["", "a", "f"]),
    st.booleans(),
)
LISTS = st.lists(ARCHS, min_size=1, max_size=6).map(
    lambda entries: cuda_archs.parse(";".join(map(str, entries)), "test")
)


def matched(record: str, targets: str) -> tuple[str, str]:
    found = cuda_archs.match(
        cuda_archs.parse(record, "record"), cuda_archs.parse(targets, "targets")
    )
    return ";".join(map(str, found.archs)), ";".join(map(str, found.unserved))


@pytest.mark.parametrize(
    ("record", "targets", "compiled", "unserved"),
    [
        ("8.0;9.0a", "9.0;10.0", "9.0a", "10.0"),
        ("8.0;9.0", "9.0a", "9.0", ""),
        ("12.0f", "12.1a", "12.0f", ""),
        ("12.0a", "12.1", "", "12.1"),
        ("9.0;9.0a", "9.0", "9.0a", ""),
        ("8.0", "8.6;8.9", "8.0", ""),
        ("8.0;8.6", "8.9;8.0", "8.0;8.6", ""),
        ("10.0f;10.0", "10.3", "10.0f", ""),
        ("8.0+PTX", "9.0;12.0", "8.0+PTX", ""),
        ("7.5+PTX;8.0+PTX", "9.0", "8.0+PTX", ""),
        ("8.0", "8.0+PTX", "8.0+PTX", ""),
        ("8.0;9.0a", "8.6;9.0+PTX", "8.0;9.0a+PTX", ""),
        ("8.0", "7.5", "", "7.5"),
        ("9.0a", "10.0", "", "10.0"),
        ("10.0f", "12.0", "", "12.0"),
        ("10.3f", "10.0", "", "10.0"),
        # In the contract's order: `a` with the number, plain with the number, family, plain below,
        # PTX of any major.
        ("10.0;10.0f;10.0a", "10.0", "10.0a", ""),
        ("10.0;10.0f", "10.0", "10.0", ""),
        ("10.0f;10.0", "10.3f", "10.0f", ""),
        ("10.0f;10.3f", "10.3", "10.3f", ""),
        ("8.0;8.6", "8.7", "8.6", ""),
        ("8.6;7.5+PTX", "8.0", "7.5+PTX", ""),
        ("7.5+PTX;8.0", "8.9", "8.0", ""),
        ("9.0a+PTX", "12.0", "9.0a+PTX", ""),
        # The suffix of a target does not change its number.
        ("9.0", "9.0a", "9.0", ""),
        ("10.0f", "10.3a", "10.0f", ""),
        ("9.0a", "9.0f", "9.0a", ""),
        # As the record spells them, in ascending order, each once.
        ("12.0;9.0a;8.0", "8.9;8.0;12.0;9.0", "8.0;9.0a;12.0", ""),
        ("8.0", "8.0+PTX;8.6", "8.0+PTX", ""),
    ],
)
def test_section_5_matching(record: str, targets: str, compiled: str, unserved: str) -> None:
    assert matched(record, targets) == (compiled, unserved)


def test_spellings() -> None:
    assert (
        ";".join(map(str, cuda_archs.parse(" 9.0a 8.0;;8.0+PTX 12.0f ", "x")))
        == "8.0+PTX;9.0a;12.0f"
    )
    assert cuda_archs.parse("Hopper", "x") == (cuda_archs.Arch(9, 0, "", ptx=True),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ; ",
        "+PTX",
        "8",
        "8.0,9.0",
        "sm_80",
        "8.0b",
        "8.0+ptx",
        "8.00",
        "hopper",
        "9.0af",
        "100.0",
    ],
)
def test_malformed_lists_name_their_source(text: str) -> None:
    with pytest.raises(ConfigurationError, match="TORCH_CUDA_ARCH_LIST"):
        cuda_archs.parse(text, "TORCH_CUDA_ARCH_LIST")


def test_commas_are_explained() -> None:
    with pytest.raises(ConfigurationError) as caught:
        cuda_archs.parse("8.0,9.0", "x")
    assert "semicolons" in (caught.value.remedy or "")


@given(LISTS)
def test_lists_read_back_what_they_print(entries: tuple[cuda_archs.Arch, ...]) -> None:
    assert cuda_archs.parse(";".join(map(str, entries)), "x") == entries


@given(LISTS, LISTS)
def test_every_target_is_served_or_listed(
    record: tuple[cuda_archs.Arch, ...], targets: tuple[cuda_archs.Arch, ...]
) -> None:
    found = cuda_archs.match(record, targets)
    assert list(found.archs) == sorted(found.archs, key=lambda arch: arch.order)
    spelled = {(arch.number, arch.feature) for arch in record}
    assert {(arch.number, arch.feature) for arch in found.archs} <= spelled
    for target in targets:
        entry = cuda_archs.serving_entry(record, target)
        assert (entry is None) == (target in found.unserved)
        if entry is not None:
            # CUDA 13 renamed 10.1 to 11.0: family code with either name runs on this chip.
            assert entry.number <= target.number or (entry.number, target.number) == (
                (11, 0),
                (10, 1),
            )
            assert entry.feature != "a" or entry.number == target.number or entry.ptx
    # The order of a list does not matter.
    assert cuda_archs.match(tuple(reversed(record)), tuple(reversed(targets))).archs == found.archs


@given(st.text(max_size=30))
def test_no_text_crashes_the_parser(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        assert cuda_archs.parse(text, "x")
