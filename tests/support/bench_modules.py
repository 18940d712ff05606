# SPDX-License-Identifier: Apache-2.0
"""The modules of the benchmarks that need no torch, for their tests."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import pytest

from vllm_build.util import paths

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = paths.source_root() / "benchmarks"
NAMES = (
    "cases",
    "gpu_cases",
    "gpu_machine",
    "machine",
    "official_gpu",
    "peers",
    "plot",
    "remote_wheel",
    "report",
    "session",
)


@pytest.fixture(name="kernels", scope="module")
def bench_modules() -> Iterator[Any]:
    """The package ``kernels`` of the benchmarks; it is forgotten after the module's tests."""
    sys.path.insert(0, str(FOLDER))
    try:
        for name in NAMES:
            importlib.import_module(f"kernels.{name}")
        yield importlib.import_module("kernels")
    finally:
        sys.path.remove(str(FOLDER))
        for name in [
            name for name in sys.modules if name.split(".")[0] in ("kernels", "bench_gpu")
        ]:
            del sys.modules[name]
