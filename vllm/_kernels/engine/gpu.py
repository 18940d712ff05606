# SPDX-License-Identifier: Apache-2.0
"""What the platforms for GPUs share: stand-ins for libraries, and a clear refusal without a GPU."""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import TYPE_CHECKING, Any

from vllm._kernels.engine import kernels, stand_ins

if TYPE_CHECKING:
    import argparse


def stand_in(name: str) -> None:
    """Let ``import vllm.<name>`` succeed if no library of that name is installed.

    Upstream imports its libraries for their effect only, the registration of ops. Ours have other
    names, and :func:`vllm._kernels.engine.kernels.load` loads them.
    """
    qualified = f"vllm.{name}"
    if qualified not in sys.modules and importlib.util.find_spec(qualified) is None:
        sys.modules[qualified] = types.ModuleType(qualified, "Loaded by vllm._kernels.")


class GpuChecks:
    """Overrides of the engine's platforms for GPUs."""

    _command_line = False

    @classmethod
    def import_kernels(cls) -> None:
        """Load our libraries.

        Raises:
            ImportError: see :func:`vllm._kernels.engine.kernels.load`.
        """
        kernels.load()
        stand_ins.without_numba()

    @classmethod
    def get_device_capability(cls, device_id: int = 0) -> Any:
        """The compute capability; None without a GPU, which some modules ask for when imported."""
        import torch  # noqa: PLC0415 - as below

        if not torch.cuda.device_count():
            return None
        return super().get_device_capability(device_id)  # type: ignore[misc] # of the engine's platform

    @classmethod
    def pre_register_and_update(cls, parser: argparse.ArgumentParser | None = None) -> None:
        """Refuse to start an engine without a GPU, before anything asks for its properties.

        The engine calls this with a parser while it describes its options, and without one before
        it reads a model.

        Raises:
            SystemExit: as RuntimeError, for the command ``vllm``.
            RuntimeError: torch sees no GPU.
        """
        import torch  # noqa: PLC0415 - `import vllm._kernels` must not import torch

        super().pre_register_and_update(parser)  # type: ignore[misc] # of the engine's platform
        if parser is not None:
            GpuChecks._command_line = True
        elif not torch.cuda.device_count():
            message = (
                f"vllm's kernels here are for {cls.device_name}, "  # type: ignore[attr-defined] # of the engine's platform
                f"but torch {torch.__version__} sees no GPU: install a torch and a driver for it, "
                'or the kernels for the CPU: conda install "vllm-kernels=*=cpu_*"'
            )
            raise SystemExit(f"error: {message}") if cls._command_line else RuntimeError(message)
