# SPDX-License-Identifier: Apache-2.0
"""The version of the kernels' Python code.

Below the engine, it differs from the version of ``vllm``, which is the engine's. A build with the
engine therefore writes a ``_version.py`` into this folder. Elsewhere both versions are the same.
"""

from __future__ import annotations

from pathlib import Path

if (Path(__file__).absolute().parent / "_version.py").is_file():
    from vllm._kernels._version import __version__
else:
    from vllm.version import __version__

__all__ = ["__version__"]
