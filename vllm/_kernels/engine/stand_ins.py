# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for modules that the engine imports and that are not installed."""

from __future__ import annotations

import importlib.util
import sys


def use() -> None:
    """Replace the engine's modules whose libraries are not installed.

    Numba and its LLVM are 150 MB, and the engine uses them for one function of one method of
    speculative decoding. For lm-format-enforcer see the module of that name.
    """
    name = "vllm.v1.spec_decode.ngram_proposer"
    if name not in sys.modules and importlib.util.find_spec("numba") is None:
        from vllm._kernels.engine import ngram  # noqa: PLC0415 - imports NumPy

        sys.modules[name] = ngram
    name = "vllm.v1.structured_output.backend_lm_format_enforcer"
    if name not in sys.modules and importlib.util.find_spec("lmformatenforcer") is None:
        from vllm._kernels.engine import lm_format_enforcer  # noqa: PLC0415 - only without it

        sys.modules[name] = lm_format_enforcer
