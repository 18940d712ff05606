# SPDX-License-Identifier: Apache-2.0
"""Attention over latent rows: :mod:`vllm._kernels.flashmla`, under upstream's name."""

from __future__ import annotations

from typing import Any

from vllm._kernels import flashmla


def __getattr__(name: str) -> Any:
    return getattr(flashmla, name)


def __dir__() -> list[str]:
    return dir(flashmla)
