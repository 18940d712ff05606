# SPDX-License-Identifier: Apache-2.0
"""Which requests fetch the needed parts of a remote file: few, side by side, and with little that is not needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Bytes that are not needed, for each that is, which a request less is worth.
WASTE = 0.01
#: Requests at once, and requests a file when its members lie close together. More would gain little
#: on one line, and servers count them.
STREAMS, REQUESTS = 4, 3

Window = tuple[int, int]


def merged(windows: Iterable[Window]) -> list[Window]:
    """The same bytes as windows that neither touch nor overlap, in order; empty ones vanish."""
    result: list[Window] = []
    for begin, end in sorted(window for window in windows if window[0] < window[1]):
        if result and begin <= result[-1][1]:
            result[-1] = result[-1][0], max(end, result[-1][1])
        else:
            result.append((begin, end))
    return result


def total(windows: Iterable[Window]) -> int:
    """Bytes in windows that do not overlap."""
    return sum(end - begin for begin, end in windows)


def requests(
    needed: Iterable[Window], *, waste: float = WASTE, streams: int = 2, least: int = 1 << 20
) -> list[Window]:
    """What to ask for so that all needed bytes come.

    The smallest gaps are asked for as well, down to ``streams`` requests and as long as they cost
    no more than ``waste`` of what is needed. A large request is cut in the middle while there are
    fewer than ``streams``, so that they run side by side.

    Args:
        needed: first byte and the byte after the last of each part.
        waste: share of the needed bytes that may be fetched in vain.
        streams: requests to aim for.
        least: bytes below which a request is not cut.
    """
    windows = merged(needed)
    budget = total(windows) * waste
    while len(windows) > streams:
        gap, at = min((windows[i + 1][0] - windows[i][1], i) for i in range(len(windows) - 1))
        if gap > budget:
            break
        budget -= gap
        windows[at : at + 2] = [(windows[at][0], windows[at + 1][1])]
    while windows and len(windows) < streams:
        size, at = max((end - begin, i) for i, (begin, end) in enumerate(windows))
        if size < least:
            break
        begin, end = windows[at]
        windows[at : at + 1] = [(begin, begin + size // 2), (begin + size // 2, end)]
    return windows
