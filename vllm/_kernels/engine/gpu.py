# SPDX-License-Identifier: Apache-2.0
"""What the platforms for GPUs share: stand-ins for libraries, and a clear refusal without a GPU."""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import TYPE_CHECKING, Any

from vllm._kernels.engine import compiler, kernels, stand_ins

if TYPE_CHECKING:
    import argparse


def stand_in(name: str) -> None:
    """Let ``import vllm.<name>`` succeed without a library, and without loading one.

    Upstream imports its libraries for their effect only, the registration of ops.
    :func:`vllm._kernels.engine.kernels.load` loads ours after checks whose messages say what is
    wrong.
    """
    qualified = f"vllm.{name}"
    if qualified not in sys.modules:
        sys.modules[qualified] = types.ModuleType(qualified, "Loaded by vllm._kernels.")


def _serves(words: list[str]) -> bool:
    """Whether a command line starts a server, and does not only ask for help."""
    return words[:1] == ["serve"] and not any(word.startswith(("-h", "--help")) for word in words)


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
        stand_ins.use()

    @classmethod
    def get_device_capability(cls, device_id: int = 0) -> Any:
        """The compute capability; None without a GPU, which some modules ask for when imported."""
        import torch  # noqa: PLC0415 - as below

        if not torch.cuda.device_count():
            return None
        return super().get_device_capability(device_id)  # type: ignore[misc] # of the engine's platform

    @classmethod
    def pre_register_and_update(cls, parser: argparse.ArgumentParser | None = None) -> None:
        """Refuse to start an engine without a GPU, Triton or a C compiler.

        This comes before anything asks for the GPU's properties, or compiles for minutes.

        The engine calls this with a parser while it describes its options, and without one before
        it reads a model. ``vllm serve`` is refused at the first call, because the engine looks for
        the model between the two, also on the hub.

        Raises:
            SystemExit: as RuntimeError, for the command ``vllm``.
            RuntimeError: torch sees no GPU, or something that Triton needs is missing.
        """
        import torch  # noqa: PLC0415 - `import vllm._kernels` must not import torch

        super().pre_register_and_update(parser)  # type: ignore[misc] # of the engine's platform
        if parser is not None:
            GpuChecks._command_line = True
        if parser is not None and not _serves(sys.argv[1:]):
            return
        message = ""
        if not torch.cuda.device_count():
            message = (
                f"vllm's kernels here are for {cls.device_name}, "  # type: ignore[attr-defined] # of the engine's platform
                f"but torch {torch.__version__} sees no GPU: install a torch and a driver for it, "
                'or the kernels for the CPU: conda install "vllm-kernels=*=cpu_*"'
            )
        elif importlib.util.find_spec("triton") is None:
            # Every torch for GPUs requires it, so only a torch for CPUs is installed without it.
            message = (
                f"the engine has kernels in Triton, which torch {torch.__version__} came without: "
                "install a torch for this GPU, which requires it"
            )
        elif compiler.use_c() is None:
            message = (
                f"Triton needs a C compiler, and there is none{compiler.what_is_missing('CC')}: "
                "conda install gcc_linux-64, or set CC"
            )
        if message:
            raise SystemExit(f"error: {message}") if cls._command_line else RuntimeError(message)
