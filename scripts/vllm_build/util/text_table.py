# SPDX-License-Identifier: Apache-2.0
"""Lays out tables as lines of text that fit a width.

Words are never broken, so that paths, digests and file names can be copied. A line exceeds the
width only if a single word does.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from rich.cells import cell_len

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The indentation of every line below a title.
INDENT = "    "
_GAP = "  "
#: The smallest width of a column of sentences, in characters. If there is less room, each row
#: becomes an entry of labelled lines.
_READABLE = 28


def wrap(text: str, width: int) -> list[str]:
    """Wrap each line of ``text`` to ``width`` characters, keeping its indentation.

    Returns:
        At least one line.
    """
    lines = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        lines += textwrap.wrap(
            line,
            max(width, 1),
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return lines


def hang(head: str, text: str, width: int) -> list[str]:
    """Put ``text`` after ``head`` and wrap it to ``width``; later lines align with the text."""
    first, *rest = wrap(text, width - cell_len(head))
    return [f"{head}{first}".rstrip(), *(" " * cell_len(head) + line for line in rest)]


def _pad(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _widest(texts: Sequence[str]) -> int:
    return max((cell_len(text) for text in texts), default=0)


def _widths(cells: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Column widths with a sum of at most ``room``; None if columns would be unreadably narrow."""
    columns = list(zip(*cells, strict=True))
    widths = [_widest([line for cell in column for line in cell.split("\n")]) for column in columns]
    floors = [
        max(_widest([word for cell in column for word in cell.split()]), min(width, _READABLE))
        for column, width in zip(columns, widths, strict=True)
    ]
    while sum(widths) > room:
        shrinkable = [index for index, width in enumerate(widths) if width > floors[index]]
        if not shrinkable:
            return None
        widths[max(shrinkable, key=widths.__getitem__)] -= 1
    return widths


def layout(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Lay out an indented table with a header.

    Cells are wrapped at spaces if necessary; line breaks in cells are kept. If ``width`` is too
    small for columns, each row becomes an entry, as :func:`entries` lays it out.
    """
    cells = [columns, *rows]
    widths = _widths(cells, width - len(INDENT) - len(_GAP) * (len(columns) - 1))
    if widths is None:
        return entries(
            [(head, list(zip(columns[1:], texts, strict=True))) for head, *texts in rows], width
        )
    lines = []
    for row in cells:
        wrapped = [wrap(cell, column) for cell, column in zip(row, widths, strict=True)]
        for index in range(max(map(len, wrapped))):
            parts = [cell[index] if index < len(cell) else "" for cell in wrapped]
            lines.append(
                (
                    INDENT
                    + _GAP.join(
                        _pad(part, column) for part, column in zip(parts, widths, strict=True)
                    )
                ).rstrip()
            )
    return lines


def entries(items: Sequence[tuple[str, Sequence[tuple[str, str]]]], width: int) -> list[str]:
    """Lay out each item as a line with its head, followed by its fields as ``label  text``.

    Everything is wrapped to ``width``. Empty fields are left out.
    """
    label_width = _widest([label for _, fields in items for label, text in fields if text])
    lines = []
    for head, fields in items:
        lines += hang(INDENT, head, width)
        for label, text in fields:
            if text:
                lines += hang(f"{INDENT * 2}{_pad(label, label_width)}{_GAP}", text, width)
    return lines
