# SPDX-License-Identifier: Apache-2.0
"""Rules for the kernels' sources that no compiler checks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "csrc"
#: Files that define the functions that kernels must call instead.
DEFINITIONS = {"core/reduce-inl.h", "core/extremes.h"}
#: Folder of the headers that replace torch's for FlashAttention.
FOREIGN = "attention/flash_shims/"
SOURCES = sorted(path for suffix in ("cc", "cu", "h") for path in CSRC.rglob(f"*.{suffix}"))
#: Minima and maxima whose result for NaN depends on the target, on the order of the operands or on
#: the C library. Those of the standard library are allowed for integers, so only calls with a sign
#: of a float, such as a float literal, are found. HWY_MAX is found, too; no size needs it.
UNDEFINED_FOR_NAN = re.compile(
    r"\b(?:hn::(?:Min|Max|ReduceMin|ReduceMax|MinOfLanes|MaxOfLanes|MinNumber|MaxNumber|MinMagnitude|MaxMagnitude)\s*\("
    r"|(?:std::)?f(?:min|max)f?\s*\(|__h(?:min|max)\w*\s*\(|HWY_MAX\s*\("
    r"|std::(?:min|max|clamp)(?:<float>)?\([^;]*(?:\d\.\d*f|0x[\da-f.]+p-?\d+f|numeric_limits<float>|fabs|epsilon|scale\b))"
)


@pytest.mark.parametrize(
    "line",
    [
        "m = hn::Max(m, v);",
        "hn::ReduceMin(d, v)",
        "x = fmaxf(x, y);",
        "std::fmin(a, b)",
        "HWY_MAX(a, b)",
        "__hmax2(a, b)",
        "std::max(x, 1.0f)",
    ],
)
def test_the_rule_finds(line: str) -> None:
    assert UNDEFINED_FOR_NAN.search(line)


def test_minima_and_maxima_say_what_becomes_of_nan() -> None:
    """Kernels call the functions of core/reduce-inl.h and core/extremes.h, which handle NaN."""
    assert len(SOURCES) > 100
    found = []
    for path in SOURCES:
        name = path.relative_to(CSRC).as_posix()
        if name in DEFINITIONS or name.startswith(FOREIGN):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            code = line.partition("//")[0]
            if UNDEFINED_FOR_NAN.search(code):
                found.append(f"csrc/{name}:{number}: {code.strip()}")
    assert not found, "call a function of csrc/core/reduce-inl.h instead:\n" + "\n".join(found)
