# SPDX-License-Identifier: Apache-2.0
"""The platforms of :mod:`vllm._kernels.platforms`, under upstream's name."""

from __future__ import annotations

from typing import Any

from vllm._kernels import platforms


def __getattr__(name: str) -> Any:
    return getattr(platforms, name)


def __dir__() -> list[str]:
    return dir(platforms)
