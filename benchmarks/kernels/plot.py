# SPDX-License-Identifier: Apache-2.0
"""Draws a plot of ratios: for each row and peer, one dot per case.

A dot's position is what the peer needs divided by what ours needs. The SVG is written without a
library.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from kernels.report import OTHERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kernels.report import Result

#: Distinguishable with colour blindness, and by their order within a row.
COLOURS = ("#0072b2", "#999999", "#d55e00")
NAMES = {"official": "official wheel", "eager": "torch eager", "compile": "torch.compile"}
LEFT, TOP, ROW, WIDTH = 290, 62, 24, 620
LOW, HIGH = -2, 6  # powers of two


def _x(ratio: float) -> float:
    return LEFT + (min(max(math.log2(ratio), LOW), HIGH) - LOW) / (HIGH - LOW) * WIDTH


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )


def _axis(bottom: float) -> list[str]:
    parts = []
    for power in range(LOW, HIGH + 1):
        x = _x(2.0**power)
        colour, width = ("#000000", 1.5) if power == 0 else ("#dddddd", 1)
        parts.append(
            f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}" stroke="{colour}" '
            f'stroke-width="{width}"/>'
        )
        parts.append(_text(x, TOP - 8, f"{2**power if power >= 0 else f'1/{2**-power}'}", "middle"))
    return parts


def draw(
    rows: Mapping[str, Mapping[str, Sequence[float]]],
    names: Mapping[str, str],
    title: str,
    subtitle: str,
) -> str:
    """Draw the SVG document.

    Args:
        rows: for each row's label, the ratios by peer.
        names: each peer and its name in the legend; at most as many as there are colours.
        title: the first line.
        subtitle: the second line.
    """
    bottom, right = TOP + ROW * len(rows), LEFT + WIDTH + 20
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right} {bottom + 14}" '
            'font-family="sans-serif" font-size="12">'
        ),
        "<!-- SPDX-License-Identifier: Apache-2.0 -->",
        f'<rect width="{right}" height="{bottom + 14}" fill="#ffffff"/>',
        _text(12, 18, title, weight="bold"),
        _text(12, 34, subtitle),
        *_axis(bottom),
    ]
    colours = dict(zip(names, COLOURS, strict=False))
    for i, (peer, name) in enumerate(names.items()):
        parts.append(f'<circle cx="{LEFT + 270 + 125 * i}" cy="14" r="4" fill="{colours[peer]}"/>')
        parts.append(_text(LEFT + 279 + 125 * i, 18, name))
    for number, (label, ratios) in enumerate(rows.items()):
        y = TOP + ROW * number
        if number % 2 == 0:
            parts.append(
                f'<rect x="0" y="{y}" width="{right}" height="{ROW}" fill="#000000" '
                'fill-opacity="0.04"/>'
            )
        parts.append(_text(LEFT - 10, y + ROW / 2 + 4, label, "end"))
        for i, peer in enumerate(names):
            for ratio in ratios.get(peer, ()):
                centre = f'cx="{_x(ratio):.1f}" cy="{y + 5 + 7 * i:.1f}"'
                parts.append(f'<circle {centre} r="3" fill="{colours[peer]}" fill-opacity="0.6"/>')
    return "\n".join([*parts, "</svg>", ""])


def svg(results: Sequence[Result], subtitle: str) -> str:
    """Draw the plot of kernels: one row per op, one dot per shape and dtype."""
    rows: dict[str, dict[str, list[float]]] = {}
    for result in results:
        ratios = {peer: ratio for peer in OTHERS if (ratio := result.ratio(peer)) is not None}
        variant = f", {result.case.variant}" if result.case.variant else ""
        for peer, ratio in ratios.items():
            row = rows.setdefault(f"{result.case.op}{variant}", {})
            row.setdefault(peer, []).append(ratio)
    return draw(rows, NAMES, "Time relative to ours: right of 1, ours is faster", subtitle)
