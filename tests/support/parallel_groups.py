# SPDX-License-Identifier: Apache-2.0
"""Gives groups of tests to the processes of pytest-xdist."""

from __future__ import annotations

from group_order import group_of
from xdist.scheduler import LoadScopeScheduling


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc] # pytest-xdist has no types
    """Gives each group to one process."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
