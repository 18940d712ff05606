# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several folders of tests share."""

from __future__ import annotations

import io
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from rich.console import Console as RichConsole

from vllm_build.util.console import Console

ROOT = Path(__file__).resolve().parents[1]

# How long an example takes is a property of the machine and of what else it does, not of the code
# under test.
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
    """A shell starts what it puts in the background with SIGINT ignored, and children inherit that: tests of Ctrl-C need it as it is."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick answers first: tests that build something run last."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
