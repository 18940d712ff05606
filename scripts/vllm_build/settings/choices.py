# SPDX-License-Identifier: Apache-2.0
"""Values of several variables and options: devices, build types, channels, outputs and GPUs."""

from __future__ import annotations

from vllm_build.architectures import gpu_targets
from vllm_build.settings.value_kinds import architectures, choice

DEVICES = ("cuda", "rocm", "cpu", "tpu", "xpu", "empty")
DEVICE = choice(*DEVICES)
BUILD_TYPES = ("Debug", "Release", "RelWithDebInfo")
CHANNELS = ("local", "conda-forge")
#: The outputs of csrc/kernels.toml; a test checks that both agree.
COMPONENTS = ("vllm-kernels", "vllm-flashmla", "vllm-flash-attn", "vllm-engine-kernels")
CUDA_ARCHS = architectures(
    "architectures such as 8.0, 9.0a or 12.0+PTX, separated by semicolons or spaces",
    lambda text: gpu_targets.parse("cuda", text, gpu_targets.VARIABLES["cuda"]),
)
CMAKE_ARCHS = architectures(
    "architectures such as 80, 90a-real or 120f, separated by semicolons",
    lambda text: gpu_targets.from_cmake(text, "CMAKE_CUDA_ARCHITECTURES"),
)
ROCM_ARCHS = architectures(
    "architectures such as gfx90a, gfx942 or gfx90a:xnack-, separated by semicolons",
    lambda text: gpu_targets.parse("rocm", text, gpu_targets.VARIABLES["rocm"]),
)
