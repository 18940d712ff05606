# SPDX-License-Identifier: Apache-2.0
"""The variables of :mod:`vllm._kernels.envs`, under upstream's name."""

from __future__ import annotations

from typing import Any

from vllm._kernels import envs


def __getattr__(name: str) -> Any:
    return getattr(envs, name)


def __dir__() -> list[str]:
    return dir(envs)
