# SPDX-License-Identifier: Apache-2.0
"""Fixtures of all tests."""

from __future__ import annotations

import io
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import group_order
import pytest
from hypothesis import HealthCheck, settings
from rich.console import Console as RichConsole

from vllm_build.util.console import Console

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parents[1]

# The time that an example takes depends on the machine and its load, not on the code under test.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def console() -> Console:
    """A console that writes into a buffer, as in a pipe."""
    return Console(_rich=RichConsole(file=io.StringIO(), highlight=False, soft_wrap=True))


def pytest_configure() -> None:
    """Restores the default action of SIGINT, which tests of Ctrl-C need.

    A shell starts background jobs with SIGINT ignored, and child processes inherit this.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the tests that build something last, so that quick failures come first."""

    def order(item: pytest.Item) -> tuple[bool, int]:
        slow = item.get_closest_marker("slow") is not None
        return slow, group_order.rank_of(item.nodeid) if slow else 0

    items.sort(key=order)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Keeps tests that share what a fixture makes in one process of a parallel run."""
    if config.option.markexpr == "slow":
        # pytest-xdist begins with the groups of most tests, but a single one may take minutes.
        config.option.loadscopereorder = False
    import parallel_groups  # imports pytest-xdist, which a run without -n can do without

    return parallel_groups.GroupScheduling(config, log)
