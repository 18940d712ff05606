# SPDX-License-Identifier: Apache-2.0
"""Fixtures that upstream's tests for CPUs expect, in place of its own conftest.py.

That one imports packages that these tests do not need. The tests run in a process of their own,
with a copy of this file as their conftest.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from vllm.platforms import current_platform

if TYPE_CHECKING:
    from collections.abc import Iterator

# The engine's worker does this when it starts.
current_platform.register_triton_kernel_overrides()


@pytest.fixture(autouse=True)
def _default_device() -> Iterator[None]:
    """Some tests change torch's default device."""
    yield
    torch.set_default_device(None)


@pytest.fixture
def default_vllm_config() -> Iterator[Any]:
    """The engine's default configuration, in place while the test runs."""
    from vllm.config import VllmConfig, set_current_vllm_config

    config = VllmConfig()
    with set_current_vllm_config(config):
        yield config
