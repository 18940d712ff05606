# SPDX-License-Identifier: Apache-2.0
"""The engine's FlashAttention module where no library of it is installed.

Upstream's libraries for CUDA always contain FlashAttention, and the engine imports its module
``vllm.vllm_flash_attn`` whenever the platform is CUDA. Packages for compute capability 7.5 alone
have none, and the engine has other attention for it.
"""

from __future__ import annotations

import importlib
import sys
import types

from vllm._kernels import loader

_PACKAGE = "vllm.vllm_flash_attn"
_LIBRARY = "_vllm_fa2_C"
LIBRARIES = frozenset({_LIBRARY, "_vllm_fa3_C"})
REASON = "the package vllm-flash-attn is not installed: it is for compute capability 8.0 and newer"


def allow_absence() -> None:
    """Let the module be imported without a library; the engine then sees that there is none."""
    if LIBRARIES & loader.available():
        return
    name = f"{_PACKAGE}.{_LIBRARY}"
    sys.modules[name] = types.ModuleType(name, "No library.")
    try:
        package = importlib.import_module(_PACKAGE)
        interface = importlib.import_module(f"{_PACKAGE}.flash_attn_interface")
    finally:
        del sys.modules[name]
    for module in (package, interface):
        vars(module)["FA2_AVAILABLE"] = False
    vars(interface)["FA2_UNAVAILABLE_REASON"] = REASON
