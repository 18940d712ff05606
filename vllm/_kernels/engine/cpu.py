# SPDX-License-Identifier: Apache-2.0
"""The CPU platform of the engine over our kernels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm._kernels.engine import (
    compiler,
    kernels,
    latent,
    model_files,
    one_process,
    stand_ins,
    topology,
)
from vllm.logger import init_logger
from vllm.platforms.cpu import CpuPlatform
from vllm.utils import cpu_resource_utils

if TYPE_CHECKING:
    import argparse

    import torch

    from vllm.config import VllmConfig

_logger = init_logger("vllm.kernels")
#: The name of our norms.
_PROVIDER = "kernels"


def _cpu_list() -> list[Any]:
    """The CPUs that are online, in place of the engine's function, which asks ``lscpu``."""
    return [cpu_resource_utils.LogicalCPUInfo(*cpu) for cpu in topology.cpus()]


def _expand(
    output: torch.Tensor,
    values: torch.Tensor,
    cumulative: torch.Tensor,
    replace_from: int,
    replace_to: int,
    longest: int | None = None,
) -> None:
    """Repeat the value of each request for its tokens.

    The engine's function of this name converts the output to int64 first, and so loses values of
    other dtypes. Our op takes int32, int64 and float32.
    """
    del longest
    from vllm._kernels.ops.rejection import expand_kernel_impl  # noqa: PLC0415 - loads the library

    expand_kernel_impl(output, values, cumulative, replace_from, replace_to)


def _usable_cpus() -> tuple[list[one_process.Cpu], int]:
    """The CPUs that this process may use, and how many of them its control group allows."""
    from vllm.utils.torch_utils import available_cpu_count  # noqa: PLC0415 - imports this platform

    found = [
        one_process.Cpu(cpu.physical_core, cpu.numa_node)
        for cpu in cpu_resource_utils.get_allowed_cpu_list()
    ]
    return found, available_cpu_count()


class KernelsCpuPlatform(CpuPlatform):  # type: ignore[misc] # the engine is not there for the check
    """Upstream's CPU platform with our library, which chooses its instruction set when it runs."""

    #: The backend of the functions that the engine compiles apart from the model.
    simple_compile_backend = "inductor" if compiler.use() else "eager"

    @classmethod
    def import_kernels(cls) -> None:
        """Load our libraries.

        Raises:
            ImportError: see :func:`vllm._kernels.engine.kernels.load`.
        """
        kernels.load()

    @classmethod
    def pre_register_and_update(cls, parser: argparse.ArgumentParser | None = None) -> None:
        """Let the engine read the classes of models in its own process.

        The engine calls this with a parser while it describes its options, and without one before
        it reads a model.
        """
        super().pre_register_and_update(parser)
        if parser is None:
            one_process.inspect_here()

    @classmethod
    def get_compile_backend(cls) -> str:
        """The backend for the model; whether it is compiled at all is decided later."""
        return "inductor"

    @classmethod
    def register_triton_kernel_overrides(cls) -> None:
        """Upstream's functions in place of Triton's kernels, one of which is ours."""
        from vllm.utils import cpu_triton_utils  # noqa: PLC0415 - imports this platform
        from vllm.v1.sample import rejection_sampler  # noqa: PLC0415 - as above

        cpu_triton_utils._expand_kernel_impl = _expand  # noqa: SLF001 - no other hook
        choose = rejection_sampler.apply_top_k_top_p
        if choose.__module__ != __name__:

            def apply_top_k_top_p(
                logits: torch.Tensor, k: torch.Tensor | None, p: torch.Tensor | None
            ) -> torch.Tensor:
                # Without any draft in the batch there are no rows, for which upstream's fails.
                return choose(logits, k, p) if len(logits) else logits

            rejection_sampler.apply_top_k_top_p = apply_top_k_top_p
        super().register_triton_kernel_overrides()
        from vllm._kernels.engine import fused  # noqa: PLC0415 - loads the library

        fused.use_activations()

    @classmethod
    def import_ir_kernels(cls) -> None:
        """Register our norms in addition to upstream's."""
        super().import_ir_kernels()
        from vllm._kernels.engine import fused  # noqa: PLC0415 - loads the library

        fused.register_norms(_PROVIDER)

    @classmethod
    def get_default_ir_op_priority(cls, vllm_config: VllmConfig) -> Any:
        """Our norms come first, unless torch.compile fuses the model's own."""
        from vllm.config import CompilationMode  # noqa: PLC0415 - imports this platform
        from vllm.config.kernel import IrOpPriorityConfig  # noqa: PLC0415 - as above

        if vllm_config.compilation_config.mode != CompilationMode.NONE:
            return super().get_default_ir_op_priority(vllm_config)
        norms = [_PROVIDER, "native"]
        return IrOpPriorityConfig.with_default(["native"], rms_norm=norms, fused_add_rms_norm=norms)

    @classmethod
    def apply_config_platform_defaults(cls, vllm_config: VllmConfig) -> None:
        """Run without torch.compile if there is no C++ compiler, and say so.

        The engine calls this before it decides which ops are its own and which are torch's.
        """
        super().apply_config_platform_defaults(vllm_config)
        from vllm.config import CompilationMode, CUDAGraphMode  # noqa: PLC0415 - imports this platform

        config = vllm_config.compilation_config
        if config.mode == CompilationMode.NONE or config.backend == "eager":
            return
        if config.mode is None and vllm_config.optimization_level == 0:
            return
        if compiler.use() is None:
            _logger.warning_once(
                "No C++ compiler%s: the model runs without torch.compile. To compile it, install "
                "one (conda install gxx_linux-64) or set CXX.",
                compiler.what_is_missing(),
            )
            config.mode = CompilationMode.NONE
            config.cudagraph_mode = CUDAGraphMode.NONE

    @classmethod
    def check_and_update_config(cls, vllm_config: VllmConfig) -> None:
        """Check the model's files, and choose the attention and the process that computes.

        Raises:
            ModelFilesError: a file is missing or incomplete.
        """
        latent.choose(vllm_config)
        before = vllm_config.parallel_config.distributed_executor_backend
        super().check_and_update_config(vllm_config)
        one_process.use(vllm_config.parallel_config, before, *_usable_cpus())
        model = vllm_config.model_config
        if model is not None and vllm_config.load_config.load_format in _SAFETENSORS:
            folder = Path(model.model)
            if folder.is_dir():
                model_files.require(folder, vllm_config.load_config.load_format)


#: Formats of weights for which the engine reads safetensors files.
_SAFETENSORS = ("auto", "hf", "safetensors")

cpu_resource_utils._get_cpu_list = _cpu_list  # noqa: SLF001 - no other hook
stand_ins.use()
