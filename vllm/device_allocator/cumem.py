# SPDX-License-Identifier: Apache-2.0
"""Device memory that can sleep: :mod:`vllm._kernels.cumem`, under upstream's name."""

from __future__ import annotations

from vllm._kernels.cumem import *  # noqa: F403 - this module has the same names
from vllm._kernels.cumem import __all__ as __all__  # noqa: PLC0414 - a re-export
