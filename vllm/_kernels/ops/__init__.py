# SPDX-License-Identifier: Apache-2.0
"""The compiled ops as Python functions, with upstream vLLM's names and arguments.

Most ops write into a tensor that the caller provides and return ``None``. The others document what
they return. In shapes, ``...`` is any number of leading dimensions: ``[..., d]``. Unless a
docstring says otherwise, dtypes are ``float32``, ``bfloat16`` and ``float16``, all floating-point
tensors of a call have the same dtype, and sums are accumulated in float32. Every function calls an
op in ``torch.ops``, so ``torch.compile`` sees the op itself.

Every function raises ``ImportError`` if the kernels are not installed. It raises ``RuntimeError``
if shapes, dtypes, devices or numbers do not fit together, or if the last dimension of a tensor is
not contiguous. A call that raises has written nothing.
"""

from vllm._kernels.ops.activation import (
    fatrelu_and_mul,
    gelu_and_mul,
    gelu_fast,
    gelu_new,
    gelu_quick,
    gelu_tanh,
    gelu_tanh_and_mul,
    mul_and_silu,
    relu_squared,
    silu_and_mul,
    silu_and_mul_quant,
    silu_and_mul_with_clamp,
    swigluoai_and_mul,
)
from vllm._kernels.ops.attention import (
    cpu_attention_with_kv_cache,
    cpu_attn_reshape_and_cache,
    get_scheduler_metadata,
    merge_attn_states,
    mla_decode_kvcache,
)
from vllm._kernels.ops.cache import (
    concat_and_cache_mla,
    convert_fp8,
    cp_gather_cache,
    cp_gather_indexer_k_quant_cache,
    gather_and_maybe_dequant_cache,
    indexer_k_quant_and_cache,
    reshape_and_cache,
    reshape_and_cache_flash,
    swap_blocks,
    swap_blocks_batch,
)
from vllm._kernels.ops.device import (
    get_device_attribute,
    get_max_shared_memory_per_block_device_attribute,
)
from vllm._kernels.ops.distributed import (
    all_reduce,
    allocate_shared_buffer_and_handle,
    dispose,
    free_shared_buffer,
    get_graph_buffer_ipc_meta,
    init_custom_ar,
    meta_size,
    open_mem_handle,
    register_buffer,
    register_graph_buffers,
)
from vllm._kernels.ops.engine import (
    compute_slot_mapping_kernel_impl,
    init_cpu_memory_env,
)
from vllm._kernels.ops.few_rows import LLMM1, wvSplitK, wvSplitK_int4_g, wvSplitKQ, wvSplitKrc
from vllm._kernels.ops.gemm import (
    create_onednn_mm_handler,
    create_onednn_scaled_mm_handler,
    onednn_mm,
    onednn_scaled_mm,
    release_dnnl_matmul_handler,
)
from vllm._kernels.ops.moe import (
    batched_moe_align_block_size,
    cpu_fused_moe,
    grouped_topk,
    moe_align_block_size,
    moe_sum,
    prepack_moe_weight,
    topk_sigmoid,
    topk_softmax,
)
from vllm._kernels.ops.norm import fused_add_rms_norm, rms_norm
from vllm._kernels.ops.norm_quant import (
    fused_add_rms_norm_static_fp8_quant,
    fused_qk_norm_rope,
    rms_norm_dynamic_per_token_quant,
    rms_norm_per_block_quant,
    rms_norm_static_fp8_quant,
)
from vllm._kernels.ops.packed_weight import (
    convert_weight_packed,
    weight_packed_linear,
)
from vllm._kernels.ops.quant_fp8 import (
    dynamic_per_token_scaled_fp8_quant,
    dynamic_scaled_fp8_quant,
    static_scaled_fp8_quant,
)
from vllm._kernels.ops.quant_group import per_token_group_fp8_quant, per_token_group_quant_int8
from vllm._kernels.ops.quant_int8 import dynamic_scaled_int8_quant, static_scaled_int8_quant
from vllm._kernels.ops.rejection import (
    expand_kernel_impl,
    rejection_greedy_sample_kernel_impl,
    rejection_random_sample_kernel_impl,
    sample_recovered_tokens_kernel_impl,
)
from vllm._kernels.ops.rocm_attention import paged_attention_rocm
from vllm._kernels.ops.rotary import rotary_embedding
from vllm._kernels.ops.sampling import fused_gumbel_argmax, greedy_argmax
from vllm._kernels.ops.scaled_mm import (
    cutlass_scaled_mm,
    cutlass_scaled_mm_azp,
    cutlass_scaled_mm_supports_block_fp8,
    cutlass_scaled_mm_supports_fp8,
)

__all__ = [
    "LLMM1",
    "all_reduce",
    "allocate_shared_buffer_and_handle",
    "batched_moe_align_block_size",
    "compute_slot_mapping_kernel_impl",
    "concat_and_cache_mla",
    "convert_fp8",
    "convert_weight_packed",
    "cp_gather_cache",
    "cp_gather_indexer_k_quant_cache",
    "cpu_attention_with_kv_cache",
    "cpu_attn_reshape_and_cache",
    "cpu_fused_moe",
    "create_onednn_mm_handler",
    "create_onednn_scaled_mm_handler",
    "cutlass_scaled_mm",
    "cutlass_scaled_mm_azp",
    "cutlass_scaled_mm_supports_block_fp8",
    "cutlass_scaled_mm_supports_fp8",
    "dispose",
    "dynamic_per_token_scaled_fp8_quant",
    "dynamic_scaled_fp8_quant",
    "dynamic_scaled_int8_quant",
    "expand_kernel_impl",
    "fatrelu_and_mul",
    "free_shared_buffer",
    "fused_add_rms_norm",
    "fused_add_rms_norm_static_fp8_quant",
    "fused_gumbel_argmax",
    "fused_qk_norm_rope",
    "gather_and_maybe_dequant_cache",
    "gelu_and_mul",
    "gelu_fast",
    "gelu_new",
    "gelu_quick",
    "gelu_tanh",
    "gelu_tanh_and_mul",
    "get_device_attribute",
    "get_graph_buffer_ipc_meta",
    "get_max_shared_memory_per_block_device_attribute",
    "get_scheduler_metadata",
    "greedy_argmax",
    "grouped_topk",
    "indexer_k_quant_and_cache",
    "init_cpu_memory_env",
    "init_custom_ar",
    "merge_attn_states",
    "meta_size",
    "mla_decode_kvcache",
    "moe_align_block_size",
    "moe_sum",
    "mul_and_silu",
    "onednn_mm",
    "onednn_scaled_mm",
    "open_mem_handle",
    "paged_attention_rocm",
    "per_token_group_fp8_quant",
    "per_token_group_quant_int8",
    "prepack_moe_weight",
    "register_buffer",
    "register_graph_buffers",
    "rejection_greedy_sample_kernel_impl",
    "rejection_random_sample_kernel_impl",
    "release_dnnl_matmul_handler",
    "relu_squared",
    "reshape_and_cache",
    "reshape_and_cache_flash",
    "rms_norm",
    "rms_norm_dynamic_per_token_quant",
    "rms_norm_per_block_quant",
    "rms_norm_static_fp8_quant",
    "rotary_embedding",
    "sample_recovered_tokens_kernel_impl",
    "silu_and_mul",
    "silu_and_mul_quant",
    "silu_and_mul_with_clamp",
    "static_scaled_fp8_quant",
    "static_scaled_int8_quant",
    "swap_blocks",
    "swap_blocks_batch",
    "swigluoai_and_mul",
    "topk_sigmoid",
    "topk_softmax",
    "weight_packed_linear",
    "wvSplitK",
    "wvSplitKQ",
    "wvSplitK_int4_g",
    "wvSplitKrc",
]

#: Ops that only GPU builds have.
GPU_ONLY = frozenset(
    {
        "LLMM1",
        "all_reduce",
        "allocate_shared_buffer_and_handle",
        "cp_gather_indexer_k_quant_cache",
        "cutlass_scaled_mm",
        "cutlass_scaled_mm_azp",
        "cutlass_scaled_mm_supports_block_fp8",
        "cutlass_scaled_mm_supports_fp8",
        "dispose",
        "free_shared_buffer",
        "get_device_attribute",
        "get_graph_buffer_ipc_meta",
        "get_max_shared_memory_per_block_device_attribute",
        "indexer_k_quant_and_cache",
        "init_custom_ar",
        "meta_size",
        "open_mem_handle",
        "paged_attention_rocm",
        "register_buffer",
        "register_graph_buffers",
        "rms_norm_per_block_quant",
        "wvSplitK",
        "wvSplitKQ",
        "wvSplitK_int4_g",
        "wvSplitKrc",
    }
)
