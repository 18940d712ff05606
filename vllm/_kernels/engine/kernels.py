# SPDX-License-Identifier: Apache-2.0
"""Loads the kernels for the engine."""

from __future__ import annotations

from vllm._kernels import build_info, loader, pins


def load() -> None:
    """Load every installed library, after a comparison with the builds that vllm requires.

    Raises:
        ImportError: no library is installed, one does not load, or one is of another build than
            this vllm requires.
    """
    for record in build_info.installed():
        differs = pins.mismatch(record.component, record.version, record.kernel_digest)
        if differs:
            raise ImportError(
                f"{record.component} is of another build than this vllm requires:\n{differs}",
                name=f"vllm.{record.component}",
            )
    loader.load()
