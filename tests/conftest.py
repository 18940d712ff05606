# SPDX-License-Identifier: Apache-2.0
"""Fixtures of all tests."""

from __future__ import annotations

import io
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from rich.console import Console as RichConsole

from vllm_build.util.console import Console

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


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Runs the tests that build something last, so that quick failures come first.

    In parallel runs, the tests of a file stay in one process and share what its fixtures make.
    Files that share more have a mark ``xdist_group``.
    """
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
    if config.getoption("loadgroup", default=False):
        for item in items:
            if item.get_closest_marker("xdist_group") is None:
                item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
