# SPDX-License-Identifier: Apache-2.0
"""The CPU platform of the engine over our kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.engine import compiler, kernels
from vllm.logger import init_logger
from vllm.platforms.cpu import CpuPlatform

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_logger = init_logger("vllm.kernels")


class KernelsCpuPlatform(CpuPlatform):  # type: ignore[misc] # the engine is not there for the check
    """Upstream's CPU platform with our library, which chooses its instruction set when it runs."""

    @classmethod
    def import_kernels(cls) -> None:
        """Load our libraries.

        Raises:
            ImportError: see :func:`vllm._kernels.engine.kernels.load`.
        """
        kernels.load()

    @classmethod
    def check_and_update_config(cls, vllm_config: VllmConfig) -> None:
        """Run without torch.compile if there is no C++ compiler, and say so."""
        super().check_and_update_config(vllm_config)
        from vllm.config import CompilationMode  # noqa: PLC0415 - imports this platform

        config = vllm_config.compilation_config
        if config.mode in (None, CompilationMode.NONE) or config.backend == "eager":
            return
        if compiler.use() is None:
            _logger.warning_once(
                "No C++ compiler: the model runs without torch.compile. To compile it, install "
                "one (conda install gxx) or set CXX."
            )
            config.mode = CompilationMode.NONE
