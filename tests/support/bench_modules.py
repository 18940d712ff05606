# SPDX-License-Identifier: Apache-2.0
"""The modules of the benchmarks that need no torch, for their tests."""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import TYPE_CHECKING, Any

import pytest

from vllm_build.util import paths

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = paths.source_root() / "benchmarks"
NAMES = (
    "baseline",
    "cases",
    "gpu_cases",
    "gpu_machine",
    "machine",
    "official_gpu",
    "pages",
    "peers",
    "plot",
    "quiet",
    "remote_wheel",
    "report",
    "session",
)


#: The same for ``engines``.
ENGINE_NAMES = (
    "cases",
    "models",
    "official_venv",
    "peer.child",
    "peer.phases",
    "peer.usage",
    "record",
    "report",
    "session",
)
_OURS = ("kernels", "engines", "bench_engine", "bench_gpu", "bench_kernels")


@contextlib.contextmanager
def _imported(package: str, names: tuple[str, ...]) -> Iterator[Any]:
    sys.path.insert(0, str(FOLDER))
    try:
        for name in names:
            importlib.import_module(f"{package}.{name}")
        yield importlib.import_module(package)
    finally:
        sys.path.remove(str(FOLDER))
        for name in [name for name in sys.modules if name.split(".")[0] in _OURS]:
            del sys.modules[name]


@pytest.fixture(name="kernels", scope="module")
def bench_modules() -> Iterator[Any]:
    """The package ``kernels`` of the benchmarks; it is forgotten after the module's tests."""
    with _imported("kernels", NAMES) as package:
        yield package


@pytest.fixture(name="engines", scope="module")
def engine_modules() -> Iterator[Any]:
    """The package ``engines`` of the benchmarks; it is forgotten after the module's tests."""
    with _imported("engines", ENGINE_NAMES) as package:
        yield package
