# SPDX-License-Identifier: Apache-2.0
"""Plans the requests for parts of a remote file: few, parallel, and with few surplus bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Surplus bytes, as a share of the needed bytes, that may be fetched to save requests.
WASTE = 0.01
#: Maximum number of parallel requests, and number of requests for a file whose members lie close
#: together. More requests would gain little on one line, and servers limit them.
STREAMS, REQUESTS = 4, 3

Window = tuple[int, int]


def merge(windows: Iterable[Window]) -> list[Window]:
    """Merge windows that touch or overlap; the result is sorted and has no empty windows."""
    result: list[Window] = []
    for begin, end in sorted(window for window in windows if window[0] < window[1]):
        if result and begin <= result[-1][1]:
            result[-1] = result[-1][0], max(end, result[-1][1])
        else:
            result.append((begin, end))
    return result


def total(windows: Iterable[Window]) -> int:
    """The number of bytes in windows that do not overlap."""
    return sum(end - begin for begin, end in windows)


def plan_requests(
    needed: Iterable[Window], *, waste: float = WASTE, streams: int = 2, least: int = 1 << 20
) -> list[Window]:
    """Choose the windows to request so that all needed bytes arrive.

    If there are more than ``streams`` windows, the smallest gaps are requested too, as long as they
    add no more than ``waste`` to the needed bytes. If there are fewer, the largest window is halved
    until there are ``streams``, so that the requests run in parallel.

    Args:
        needed: offset of the first byte of each part, and of the byte after its last.
        waste: surplus bytes that may be fetched, as a share of the needed bytes.
        streams: number of requests to aim for.
        least: windows with fewer bytes are not halved.
    """
    windows = merge(needed)
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
