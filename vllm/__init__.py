# SPDX-License-Identifier: Apache-2.0
"""LLM kernels for CPUs and accelerators.

``import vllm`` is cheap: it reads the version and imports neither torch nor a kernel library. The
ops are in :mod:`vllm._custom_ops`, and :mod:`vllm.platforms` describes the machine. ``python -m
vllm.collect_env`` prints a report for bug trackers.
"""

from __future__ import annotations

from vllm.version import __version__, __version_tuple__

__all__ = ["__version__", "__version_tuple__"]
