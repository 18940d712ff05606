# SPDX-License-Identifier: Apache-2.0
"""Chooses the attention over latent rows (MLA) whose ops our library has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm._kernels.loader import namespace
from vllm.logger import init_logger
from vllm.v1.attention.backends.registry import AttentionBackendEnum

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_logger = init_logger("vllm.kernels")
#: Ops of upstream's attention with AMX.
_WITH_AMX = ("decode_attention_cpu", "extend_attention_cpu", "bmm_cpu")


def choose(config: VllmConfig) -> None:
    """Take upstream's attention for every CPU, unless the library has the ops of the one with AMX.

    On a CPU with AMX, upstream takes the latter without looking for its ops.
    """
    model = config.model_config
    if model is None or not model.use_mla:
        return
    ops = namespace("_C")
    if all(hasattr(ops, name) for name in _WITH_AMX):
        return
    attention = config.attention_config
    if attention.backend not in (None, AttentionBackendEnum.CPU_MLA):
        _logger.warning_once(
            "The kernels have no attention backend %s: the model runs with CPU_MLA.",
            attention.backend.name,
        )
    attention.backend = AttentionBackendEnum.CPU_MLA
