# SPDX-License-Identifier: Apache-2.0
"""The platform for AMD GPUs of the engine over our kernels."""

from __future__ import annotations

from typing import Any

import torch

from vllm._kernels.engine import gpu


def _base() -> Any:
    """Upstream's platform; without a GPU one that only has a name.

    Upstream's module asks the GPU for its architecture when it is imported.
    """
    if torch.cuda.device_count():
        from vllm.platforms.rocm import RocmPlatform  # noqa: PLC0415 - only with a GPU

        return RocmPlatform
    from vllm.platforms.interface import UnspecifiedPlatform  # noqa: PLC0415 - as above

    return UnspecifiedPlatform


class KernelsRocmPlatform(gpu.GpuChecks, _base()):  # type: ignore[misc] # computed above
    """Upstream's platform with our libraries."""

    device_name = "rocm"
    device_type = "cuda"
