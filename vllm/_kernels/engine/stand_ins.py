# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for modules that the engine imports and that are not installed."""

from __future__ import annotations

import importlib.util
import sys
import types


def library(name: str) -> None:
    """Let ``import vllm.<name>`` succeed if no library of that name is installed.

    Upstream imports its libraries for their effect only, the registration of ops. Ours have other
    names, and :func:`vllm._kernels.engine.kernels.load` loads them.
    """
    qualified = f"vllm.{name}"
    if qualified not in sys.modules and importlib.util.find_spec(qualified) is None:
        sys.modules[qualified] = types.ModuleType(qualified, "Loaded by vllm._kernels.")


def without_numba() -> None:
    """Draft tokens from n-grams without Numba, if it is not installed.

    Numba and its LLVM are 150 MB, and the engine uses them for one function of one method of
    speculative decoding.
    """
    name = "vllm.v1.spec_decode.ngram_proposer"
    if name not in sys.modules and importlib.util.find_spec("numba") is None:
        from vllm._kernels.engine import ngram  # noqa: PLC0415 - imports NumPy

        sys.modules[name] = ngram
