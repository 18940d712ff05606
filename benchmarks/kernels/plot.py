# SPDX-License-Identifier: Apache-2.0
"""Draws the plot: for each op and peer, one dot per case.

A dot's position is the peer's time divided by ours. The SVG is written without a library.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from kernels.report import OTHERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernels.report import Result

#: Distinguishable with colour blindness, and by their order within a row.
COLOURS = {"official": "#0072b2", "eager": "#999999", "compile": "#d55e00"}
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


def svg(results: Sequence[Result], subtitle: str) -> str:
    """Draw the SVG document."""
    measured = [
        result for result in results if any(result.ratio(peer) is not None for peer in OTHERS)
    ]
    rows = list(dict.fromkeys((result.case.op, result.case.variant) for result in measured))
    bottom, right = TOP + ROW * len(rows), LEFT + WIDTH + 20
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right} {bottom + 14}" '
            'font-family="sans-serif" font-size="12">'
        ),
        "<!-- SPDX-License-Identifier: Apache-2.0 -->",
        f'<rect width="{right}" height="{bottom + 14}" fill="#ffffff"/>',
        _text(12, 18, "Time relative to ours: right of 1, ours is faster", weight="bold"),
        _text(12, 34, subtitle),
        *_axis(bottom),
    ]
    for i, peer in enumerate(OTHERS):
        parts.append(f'<circle cx="{LEFT + 270 + 125 * i}" cy="14" r="4" fill="{COLOURS[peer]}"/>')
        parts.append(_text(LEFT + 279 + 125 * i, 18, NAMES[peer]))
    for number, (op, variant) in enumerate(rows):
        y = TOP + ROW * number
        if number % 2 == 0:
            parts.append(
                f'<rect x="0" y="{y}" width="{right}" height="{ROW}" fill="#000000" '
                'fill-opacity="0.04"/>'
            )
        parts.append(
            _text(LEFT - 10, y + ROW / 2 + 4, f"{op}{', ' + variant if variant else ''}", "end")
        )
        for i, peer in enumerate(OTHERS):
            for result in measured:
                ratio = result.ratio(peer)
                if (result.case.op, result.case.variant) == (op, variant) and ratio is not None:
                    centre = f'cx="{_x(ratio):.1f}" cy="{y + 5 + 7 * i:.1f}"'
                    parts.append(
                        f'<circle {centre} r="3" fill="{COLOURS[peer]}" fill-opacity="0.6"/>'
                    )
    return "\n".join([*parts, "</svg>", ""])
