# SPDX-License-Identifier: Apache-2.0
"""LLM kernels for CPUs and accelerators.

This is the thin face of a source tree, without upstream's engine. Everything in it is also in the
package with the engine, in :mod:`vllm._kernels`; the other modules are short ones with upstream's
names. ``import vllm`` is cheap: it reads the version and imports neither torch nor a kernel
library. ``python -m vllm.collect_env`` prints a report for bug trackers.
"""

from __future__ import annotations

from vllm.version import __version__, __version_tuple__

__all__ = ["__version__", "__version_tuple__"]
