# SPDX-License-Identifier: Apache-2.0
"""LLM kernels for CPUs and accelerators.

``import vllm`` costs next to nothing: it reads the version and imports neither torch nor a kernel
library. The ops are in :mod:`vllm._custom_ops`, the machine in :mod:`vllm.platforms`, a report for
bug trackers comes from ``python -m vllm.collect_env``.
"""

from __future__ import annotations

from vllm.version import __version__, __version_tuple__

__all__ = ["__version__", "__version_tuple__"]
