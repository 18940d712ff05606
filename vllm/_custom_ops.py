# SPDX-License-Identifier: Apache-2.0
"""The ops, as in :mod:`vllm._kernels.ops`, under upstream's name."""

from __future__ import annotations

from vllm._kernels.ops import *  # noqa: F403 - this module has the same names
from vllm._kernels.ops import __all__ as __all__  # noqa: PLC0414 - a re-export
